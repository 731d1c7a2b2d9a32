"""How the model that ships was trained and measured. Not part of the installed package."""

"""VideoCapture: its settings, opening a source, reading it, keeping its packets."""

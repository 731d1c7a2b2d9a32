"""Pictures in a log: how they are stored, decoded and encoded."""

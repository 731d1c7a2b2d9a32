"""A log for other programs: texts, tables, films, recordings for viewers. One file a format."""

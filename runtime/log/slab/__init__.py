"""One file of a log: MCAP, written in place through a mapping and valid at every instant."""

"""A recorded run once more: the same engine, fed from the log, each message compared."""

"""One live run of one graph: plan, engine, log and what watches it, put together."""

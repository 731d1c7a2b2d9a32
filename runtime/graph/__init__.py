"""From a graph file to a plan: read (graph), find and check (bind), order (plan)."""

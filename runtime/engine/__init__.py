"""HOW A GRAPH RUNS: the cycle, its order, errors, rates and keyframes, live and recorded."""

"""What models need, whichever task runs them: checkpoints, loading, sharing, questions."""

"""Rules: pure functions from a window of statistics and the model's description to findings."""

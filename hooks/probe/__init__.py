"""The only room that imports torch: hooks, reductions, schedule, local diagnosis."""

"""initscope.service: the collector."""

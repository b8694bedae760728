"""The training job's connection to a collector: identity, queue, sender, transport, books."""

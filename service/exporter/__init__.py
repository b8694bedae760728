"""Prometheus: live runs and the service's own metrics."""

"""HTTP under /api/v1: authentication, errors, routes."""

"""From a request body to committed rows."""

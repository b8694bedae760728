"""Tables, engine and every query."""

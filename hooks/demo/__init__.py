"""Real trainings for `initscope demo`, through the public door only."""

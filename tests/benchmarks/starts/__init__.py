"""Labelled starts of our own: small trainings of many architectures, what became of them, and what the rules said."""

"""Recognise the initialization scheme of a tensor and of a model, from moments and structure alone. Pure."""

from initscope.hooks.schemes.mistakes import find_mistakes
from initscope.hooks.schemes.recognise import recognise
from initscope.hooks.schemes.scheme import Family, Mistake, Recognition, Scheme, Slip

__all__ = ["Family", "Mistake", "Recognition", "Scheme", "Slip", "find_mistakes", "recognise"]

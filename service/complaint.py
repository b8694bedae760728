"""What an operator has to know before anything can run."""

from __future__ import annotations


class Complaint(Exception):
    """Why a command cannot do what it was asked, in one line; the command line shows it and ends with status 2."""

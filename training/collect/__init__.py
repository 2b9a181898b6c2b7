"""Collecting outcomes: a backend answers questions at every rung of a ladder, and scorers grade the answers."""

"""Outcome files: their schema, their faults, their splits."""

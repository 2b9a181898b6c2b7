"""Outcome files: schema, splits, what is wrong with a file."""

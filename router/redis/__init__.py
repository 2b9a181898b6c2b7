"""Connections to Redis, and calls that end in time."""

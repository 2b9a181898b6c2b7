"""Collects outcomes from a backend, on this machine or on Ray."""

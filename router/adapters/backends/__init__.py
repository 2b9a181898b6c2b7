"""Inference backends: whatever runs a reasoning model within a budget."""

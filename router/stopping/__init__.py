"""Stopping within the thought: what the cuts have shown, and the rules that read it."""

"""Bare prompts made into conversations, with the outcomes of the bare prompt."""

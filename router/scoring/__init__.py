"""Scores of prompts: classifiers, batches, caches."""

"""Inference engines: dialects, enforcement, replicas."""

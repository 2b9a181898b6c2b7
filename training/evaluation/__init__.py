"""Certificates, policies and baselines, and the figures that compare them."""

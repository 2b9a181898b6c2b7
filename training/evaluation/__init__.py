"""Policies and baselines under their certificates, and the figures that compare them."""

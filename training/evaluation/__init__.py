"""Certificates, policies, baselines and the figures that judge them."""

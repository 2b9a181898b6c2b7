"""Offline training: outcomes in, a verified model bundle out.

The stages are collect -> dataset -> fit -> certify -> evaluate -> export, each a module of its own.
"""

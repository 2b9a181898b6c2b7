"""Offline training: outcomes in, a verified model bundle out.

collect -> dataset -> fit -> certify -> evaluate -> export, one module a stage.
"""

"""Certificates of an existing bundle with few labels, and the labels that they need next."""

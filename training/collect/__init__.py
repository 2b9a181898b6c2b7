"""Outcomes from a backend: questions are asked at every rung of a ladder, and the answers scored."""

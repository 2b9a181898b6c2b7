"""Tests of training.labelling."""

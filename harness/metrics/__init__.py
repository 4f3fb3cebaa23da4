"""Scores of single answers: pure functions from texts to numbers."""

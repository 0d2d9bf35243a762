"""Comparisons of models by people: strengths, intervals, tests and planning."""

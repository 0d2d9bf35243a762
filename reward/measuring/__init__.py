"""Measures of a reward: figures, intervals, baselines, plots."""

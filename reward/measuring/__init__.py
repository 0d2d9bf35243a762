"""Measures of a reward: figures, intervals, baselines, learning curves, plots."""

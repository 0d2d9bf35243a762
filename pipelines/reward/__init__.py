"""Stages that train the reward and score with it."""

"""Stages that train the reward and score by it."""

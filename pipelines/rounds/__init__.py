"""Stages that run other stages: rounds, and the demo."""

"""Stages of comparisons by people: images, plan and report."""

"""Stages of comparisons by people: their images, their plan and their report."""

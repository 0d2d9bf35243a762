"""Stages from prompts to labels."""

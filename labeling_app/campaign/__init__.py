"""The campaign: its tasks, their checks, and simulated raters."""

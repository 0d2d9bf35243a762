"""The plan: tasks, their overlap, and the checks of raters."""

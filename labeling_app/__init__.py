"""Images to labels: the raters' browser app, its rules, and simulated raters; without torch."""

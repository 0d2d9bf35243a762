"""Views of the store: progress, labels for pages, and rows of the tables."""

"""Data that methods learn from: labels and weighted images, in batches."""

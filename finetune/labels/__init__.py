"""Training data of the methods: labels and weighted images, in batches."""

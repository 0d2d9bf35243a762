"""Training, measuring and auditing the embedded models: what `make models` runs."""

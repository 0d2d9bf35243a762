"""Settings of a run: their models, files and reference."""

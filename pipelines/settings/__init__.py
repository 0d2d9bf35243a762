"""Settings of a run: their models, their files, and their guide; nothing that plans or works."""

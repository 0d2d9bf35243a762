"""Code that all stages share: the run's record, prompts, images and models."""

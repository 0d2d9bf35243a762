"""Fine-tunes a diffusion model on a reward: one file per method, and shared code."""

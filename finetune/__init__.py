"""Fine-tunes a diffusion model on a reward: one file per method, and the parts that they share."""

"""The diffusion model: its families, its LoRA, its noise schedules and its samplers."""

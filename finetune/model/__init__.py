"""The diffusion model: its families, its adapter, its noise schedules and its samplers."""

"""Training of the reward: its split, its losses, its objective and its calibration."""

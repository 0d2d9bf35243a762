"""The methods of fine-tuning, one file each, and what policy gradients share."""

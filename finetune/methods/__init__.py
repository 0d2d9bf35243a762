"""The fine-tuning methods, one file each, and the shared code of policy gradients."""

"""The reward model: CLIP embeddings and a small head that learns what raters call good."""

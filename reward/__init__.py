"""The reward model: CLIP embeddings and a small head that learn what raters call good. Never imports pipelines."""

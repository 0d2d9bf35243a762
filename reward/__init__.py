"""The reward model: CLIP embeddings and a small head that predicts raters' answers."""

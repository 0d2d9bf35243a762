"""CLIP: its families, its trainable blocks, and the cache of embeddings."""

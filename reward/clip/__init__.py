"""CLIP: its families, its trained blocks, and the cache of its embeddings."""

"""The embedded world: emoji animals drawn by code, and the models trained on them.

Among these are the base model, its CLIP, and the oracle that reads its images.
"""

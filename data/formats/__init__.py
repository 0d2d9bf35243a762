"""Labels and images from other people's files into a run, and from a run into theirs.

Each format is one module, named in `registry.py`.
"""

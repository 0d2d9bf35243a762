"""Labels and images from other people's files into a run, and from a run into theirs; one module a format, named in `registry.py`."""

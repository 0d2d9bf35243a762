"""Sessions: a slate of images each turn, for people on a page and for simulated people."""

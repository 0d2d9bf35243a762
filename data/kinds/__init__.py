"""Kinds of tasks: one file a kind, and `registry.KINDS` with all of them."""

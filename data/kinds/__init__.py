"""Kinds of tasks: one file for each kind; `registry.KINDS` lists all kinds."""

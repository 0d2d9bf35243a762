"""The stage that tunes: its plan, which imports no torch, and its work."""

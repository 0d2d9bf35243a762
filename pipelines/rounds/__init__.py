"""Stages that go through others: rounds, and the demo."""

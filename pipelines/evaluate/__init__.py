"""Stages that compare base and tuned models: the plan, the figures and the report."""

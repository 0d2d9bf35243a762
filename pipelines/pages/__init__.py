"""HTML pages of the stages: templates, charts, statistics."""

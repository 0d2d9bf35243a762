"""The plan: which tasks there are, how often they are asked, and what checks raters."""

"""Axes of comparisons: the questions that people are asked about images of several models.

Each axis is a question of its own (Imagen 3, arXiv 2408.07009): four about two images of one prompt
by two models, one about the number of things in a single image.
"""

from typing import Literal

Axis = Literal["overall", "alignment", "appeal", "detailed", "count"]
AXES: tuple[Axis, ...] = ("overall", "alignment", "appeal", "detailed", "count")

SHOWN_WITHOUT_PROMPT = frozenset({"appeal", "count"})
"""The axes whose raters are not told the prompt."""

MOST_COUNTED = 10
"""Highest count that is told apart; it stands for more as well."""


Strength = Literal["slightly", "much"]
"""Degree of a preference, in a comparison with five steps."""

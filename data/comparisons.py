"""Axes of comparisons: the questions that raters answer about images of several models.

Each axis is a question of its own (Imagen 3, arXiv 2408.07009): four about two images of one prompt
by two models, one about the number of things in a single image.
"""

from typing import Literal

Axis = Literal["overall", "alignment", "appeal", "detailed", "count"]
AXES: tuple[Axis, ...] = ("overall", "alignment", "appeal", "detailed", "count")

SHOWN_WITHOUT_PROMPT = frozenset({"appeal", "count"})
"""The axes on which the prompt is hidden from raters."""

MOST_COUNTED = 10
"""Highest count that raters can enter; it means this number or more."""


Strength = Literal["slightly", "much"]
"""Strength of a preference, in a comparison with five answers."""

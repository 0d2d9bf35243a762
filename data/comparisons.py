"""Axes of comparisons: the questions that raters answer about images of several models.

Each axis is a question of its own about two images of one prompt by two models (Imagen 3, arXiv
2408.07009).
"""

from typing import Literal

Axis = Literal["overall", "alignment", "appeal"]
AXES: tuple[Axis, ...] = ("overall", "alignment", "appeal")

WITHOUT_PROMPT: Axis = "appeal"
"""The axis on which the prompt is hidden from raters."""

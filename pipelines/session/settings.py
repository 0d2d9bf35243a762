"""Settings of sessions."""

from pathlib import Path

from pydantic import BaseModel, Field

from data.sessions import COLUMN_IMAGES
from finetune.settings.adapter_kinds import BASE
from reward.sessions.settings import PolicyName


class SessionConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of sessions; the page is served at the address of `play`."""

    model: str = BASE
    """Model that draws: `base`, or a tuned model of the run such as `rwl`."""
    images: int = Field(default=COLUMN_IMAGES, ge=1, le=16)
    """Images of a candidate, which share a column."""
    intents: Path | None = None
    """Text file with what people are asked to get drawn, one a line, so that sessions can be
    compared. Without it, all sessions begin with a wish of the person's own."""
    show_prompts: bool = True
    """Whether people see the prompt of each column. PASTA hides it."""
    policy: PolicyName = "random"
    """Policy that picks the slates: `random`, or `greedy` or `value` by `make session-policy`."""
    language_model: str | None = None
    """Language model that proposes candidates besides the rules: the address of an OpenAI-like
    server and a model, such as `http://127.0.0.1:8000/v1#qwen3`, or a function as
    `module:function`, which gets prompt, critique and number and returns a list of prompts for each
    category."""

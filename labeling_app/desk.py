"""What the routes of the app share: the store, the images, the guidelines and the counts for `/health`."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from data.errors import PictuneError
from data.store import FeedbackStore

APP_VERSION = version("pictune")
"""Stored with each label."""

STATIC = Path(__file__).parent / "static"
"""The front end's own files."""


@dataclass(frozen=True)
class Guidelines:
    """The instructions that raters read."""

    text: str
    """Markdown."""

    @property
    def version(self) -> str:
        """Stored with each label, so that labels made under other instructions can be told apart."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @classmethod
    def read(cls, path: Path | None) -> "Guidelines":
        """Reads a Markdown file, or our own guidelines when there is none.

        Raises:
            PictuneError: the file cannot be read.
        """
        file = path or STATIC / "guidelines.md"
        try:
            return cls(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PictuneError(f"{file}: cannot be read ({error}); name a Markdown file in UTF-8 as guidelines") from error


@dataclass
class Health:
    """What went wrong, and what went right last; counts since the app started."""

    writes_refused: int = 0
    writes_failed: int = 0
    last_export: datetime | None = None
    export_error: str | None = None


@dataclass(frozen=True)
class Desk:
    """One labeling app's things."""

    store: FeedbackStore
    image_path: Callable[[str], Path | None]
    guidelines: Guidelines
    health: Health = field(default_factory=Health)

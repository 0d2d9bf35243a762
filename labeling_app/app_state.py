"""State that the routes of the app share: store, images, guidelines and exports."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from labeling_app.campaign.known_answers import TrainingItem
from labeling_app.campaign.tasks import ImageRow
from labeling_app.settings import LabelConfig
from labeling_app.words import Words, read_words

LOGGER = logging.getLogger(__name__)

APP_VERSION = version("pictune")
"""Stored with each label."""

STATIC = Path(__file__).parent / "static"
"""The front end's own files."""


def image_url(image_id: str) -> str:
    """Return the address at which the app serves an image."""
    return f"/api/v1/images/{image_id}"


@dataclass(frozen=True)
class Guidelines:
    """Instructions that raters read."""

    text: str
    """Markdown."""
    translations: Mapping[str, str] = field(default_factory=dict)
    """Translations by language; raters of other languages read `text`."""

    def version(self, language: str | None = None) -> str:
        """Return the digest of the guidelines in this language, which is stored with each label."""
        text = self.translations.get(language or "", self.text)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def read(cls, path: Path | None, languages: Collection[str] = ()) -> "Guidelines":
        """Read a Markdown file, or the built-in guidelines if `path` is None.

        Translations are files beside it, such as `guidelines.de.md` beside `guidelines.md`.

        Raises:
            PictuneError: a file cannot be read.
        """
        file = path or STATIC / "guidelines.md"
        translations = {
            language: file.with_name(f"{file.stem}.{language}{file.suffix}")
            for language in languages
        }
        there = {name: _markdown(path) for name, path in translations.items() if path.exists()}
        return cls(_markdown(file), there)


def _markdown(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PictuneError(
            f"{file}: cannot be read ({error}); name a Markdown file in UTF-8 as guidelines"
        ) from error


class Health(BaseModel):
    """State of the app, for monitoring: the last export, and counts of failures since its start."""

    status: str = "ok"
    """`ok`, or the fault."""
    writes_refused: int = 0
    writes_failed: int = 0
    last_export: datetime | None = None
    export_error: str | None = None
    free_disk_bytes: int = 0


@dataclass
class QualityCache:
    """Cache of the campaign's quality, whose computation takes seconds.

    Each computation assigns a new object, so that readers on other threads keep a consistent one.
    """

    quality: Mapping[str, Any] | None = None


class Exports:
    """Exports to Parquet, one at a time; `health` gets the result of the last export."""

    def __init__(self, on_export: Callable[[], object] | None, health: Health) -> None:
        self._on_export = on_export
        self._health = health
        self._lock = Lock()

    def export(self) -> None:
        """Export now.

        Raises:
            PictuneError: the export failed; the labels are safe in the store.
        """
        if self._on_export is None:
            raise PictuneError("export: this app has none; export the labels with `make dataset`")
        with self._lock:
            try:
                self._on_export()
            except (PictuneError, OSError) as error:
                self._health.export_error = str(error)
                LOGGER.warning("export failed, the labels are safe in the store: %s", error)
                raise PictuneError(str(error)) from error
            self._health.last_export, self._health.export_error = datetime.now(UTC), None

    async def export_regularly(self, every_s: float, ending: asyncio.Event) -> None:
        """Export regularly until `ending` is set, and then a last time; retry failed exports."""
        while self._on_export is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), every_s)
            last = ending.is_set()
            with suppress(PictuneError):
                await asyncio.to_thread(self.export)
            if last:
                return


@dataclass(frozen=True)
class AppState:
    """Shared state of the routes of one labeling app."""

    config: LabelConfig
    store: FeedbackStore
    image_path: Callable[[str], Path | None]
    guidelines: Guidelines
    exports: Exports
    quality: Callable[[Mapping[str, str]], Mapping[str, Any]]
    """Return `data.quality.campaign.campaign_quality` of the categories."""
    health: Health
    folder: Path
    """Folder of the labels; `/health` reports the free space of its disk."""
    training: tuple[TrainingItem, ...] = ()
    """Questions that raters answer, with feedback, before their first task."""
    words: Mapping[str, Words] = field(default_factory=read_words)
    """The page's words by language."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """Prompt id to category."""
    images: Callable[[], Mapping[str, ImageRow]] | None = None
    """Return the campaign's images by id and by path, for gold that admins add."""
    tables: Path | None = None
    """Folder of the tables of the last export, for admins to download."""
    quality_cache: QualityCache = field(default_factory=QualityCache)
    decoding: Executor = field(default_factory=lambda: ThreadPoolExecutor(4, "images"))
    """Threads that decode images; one image may take more than a hundred megabytes. A request that
    waits here blocks no other request."""
    signing_in: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, "sign-in"))
    """Threads that check passwords; one check takes tens of megabytes and a core."""


async def _state(
    request: Request,
) -> AppState:  # async, because a thread would cost more than the work itself
    state: AppState = request.app.state.labeling
    return state


State = Annotated[AppState, Depends(_state)]

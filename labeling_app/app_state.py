"""State that the routes of the app share: store, images, guidelines and exports."""

import asyncio
import hashlib
import logging
import shutil
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
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.settings import LabelConfig
from labeling_app.words import check_language, read_words

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


@dataclass(eq=False)
class AppState:
    """State that the routes of one labeling app share.

    Raises:
        PictuneError: guidelines or words cannot be read, or there are no words in `label.language`.
    """

    store: FeedbackStore
    image_path: Callable[[str], Path | None]
    """Return the file of an image id of this campaign, else None; no other files are served."""
    config: LabelConfig
    tasks: TasksConfig = field(default_factory=TasksConfig)
    on_export: Callable[[], object] | None = None
    """Export the labels: called every `export_every_s` seconds while the app runs, once when it
    ends, and when an admin asks for it."""
    training: tuple[TrainingItem, ...] = ()
    """Questions that raters answer, with feedback, before their first task."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """Prompt id to category."""
    quality: Callable[[Mapping[str, str]], Mapping[str, Any]] | None = None
    """Return `data.quality.campaign.campaign_quality` of the categories; by default it is computed
    in this process, which takes seconds with many labels."""
    tables: Path | None = None
    """Folder of the tables of the last export, for admins to download."""
    latest_quality: Mapping[str, Any] | None = None
    """The last quality that was computed: a new object each time, so that readers on other threads
    keep a consistent one."""

    def __post_init__(self) -> None:
        self.words = read_words()
        check_language(self.config.language, self.words)
        self.guidelines = Guidelines.read(self.config.guidelines, self.words)
        self.health = Health()
        self.exports = Exports(self.on_export, self.health)
        # decoding one image may take more than a hundred megabytes; a request that waits here
        # blocks no other request
        self.decoding: Executor = ThreadPoolExecutor(4, "images")
        # one check of a password takes tens of megabytes and a core
        self.signing_in: Executor = ThreadPoolExecutor(2, "sign-in")

    @property
    def free_disk_bytes(self) -> int:
        """Free space of the disk that has the labels."""
        return shutil.disk_usage(self.store.database.folder or Path.cwd()).free


async def _state(
    request: Request,
) -> AppState:  # async, because a thread would cost more than the work itself
    state: AppState = request.app.state.labeling
    return state


State = Annotated[AppState, Depends(_state)]

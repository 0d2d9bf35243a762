"""Exports and quality figures in a second process, so that raters do not wait for them."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any

from data.errors import PictuneError
from data.quality.campaign import campaign_quality
from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from pipelines.compare.arena.analysis import pairs_of
from pipelines.compare.arena.campaign import Campaign
from pipelines.compare.arena.figures import AXIS_TITLES, PairFigures
from pipelines.run.campaign import export_labels, open_store

Request = Mapping[str, str] | None
"""Request to the process: None for an export; categories by prompt id for quality figures."""

RATERS_FIRST = 10
"""Niceness (low priority) of the process."""

FOR_THE_APP = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the app; the second process ignores them, since a last export follows."""


class Exporter:
    """The second process, started by the first request; close it after use.

    It ends by itself if the process of the app is killed.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._one_at_a_time = Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def export(self) -> str:
        """Export as `pipelines.run.campaign.export_labels` does.

        Raises:
            PictuneError: the export failed, or the process was killed; the next call starts a new
                process.
        """
        return str(self._ask(None))

    def quality(self, categories: Mapping[str, str]) -> dict[str, Any]:
        """Return `campaign_quality` of the categories, and `comparisons`; raise as `export` does.

        `comparisons` has (title of the question, `PairFigures`) for each pair of the last export.
        """
        return dict(self._ask(categories))

    def _ask(self, request: Request) -> Any:
        with self._one_at_a_time:
            connection = self._connection or self._start()
            try:
                connection.send(request)
                answer = connection.recv()
            except (EOFError, OSError) as error:
                self.close()
                raise PictuneError(
                    f"{self._run.latest}: the process that exports was killed; "
                    "the next export starts another"
                ) from error
        if isinstance(answer, PictuneError):
            raise answer
        return answer

    def _start(self) -> "Connection[Any, Any]":
        context = get_context("spawn")  # a fork would copy the store's connections
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_export_on_request, args=(theirs, self._run), name="export"
        )
        resource_tracker.ensure_running()  # starting the process unblocks signals
        # the new process starts with these signals blocked
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_APP)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        return self._connection

    def close(self) -> None:
        """End the process."""
        if self._connection is not None and self._process is not None:
            self._connection.close()
            self._process.join()
        self._connection = self._process = None


def _export_on_request(connection: "Connection[Any, Any]", run: RunFolder) -> None:
    os.nice(RATERS_FIRST)
    with open_store(run) as store, suppress(EOFError, BrokenPipeError):  # the app has ended
        while True:
            connection.send(_answer(store, run, connection.recv()))


def _answer(store: FeedbackStore, run: RunFolder, request: Request) -> object:
    try:
        if request is None:
            return export_labels(store, run)
        return campaign_quality(store, request) | {"comparisons": _compared(run.latest.resolve())}
    except (PictuneError, OSError) as error:
        return PictuneError(str(error))


@lru_cache(maxsize=1)  # an export never changes
def _compared(export: Path) -> list[tuple[str, PairFigures]]:
    """Return how the pairs of models stand by an export; empty without comparisons of models."""
    try:
        campaign = Campaign.read(export, export.name)
    except PictuneError:
        return []
    return [
        (AXIS_TITLES[axis], pair)
        for axis in campaign.axes
        for pair in pairs_of(campaign.votes(axis))[1]
    ]

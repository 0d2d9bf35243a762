"""Exports of the labeling app in a process of their own: of many labels one takes seconds of computing, for which no rater shall wait."""

import os
import signal
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from data.errors import PictuneError
from data.runs import RunFolder
from data.store import FeedbackStore
from pipelines.config import Settings
from pipelines.tasks import export_labels, open_store

RATERS_FIRST = 10
"""Niceness of the process."""


class Exporter:
    """The process, started with the first export and ended with the block; it ends by itself when this one is killed."""

    def __init__(self, run: RunFolder, settings: Settings) -> None:
        self._run = run
        self._settings = settings
        self._process: BaseProcess | None = None
        self._requests: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._end()

    def export(self) -> str:
        """Exports as `pipelines.tasks.export_labels`, one call at a time.

        Raises:
            PictuneError: the export failed, or the process was killed; the next call starts another.
        """
        requests = self._requests or self._start()
        try:
            requests.send(None)
            answer = requests.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise PictuneError(f"{self._run.latest}: the process that exports was killed; the next export starts another") from error
        if isinstance(answer, PictuneError):
            raise answer
        return str(answer)

    def _start(self) -> "Connection[Any, Any]":
        context = get_context("spawn")  # a fork would take the store's connections along
        self._requests, theirs = context.Pipe()
        self._process = context.Process(target=_export_on_request, args=(theirs, self._run, self._settings), name="export")
        self._process.start()
        theirs.close()
        return self._requests

    def _end(self) -> None:
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.join()
        self._requests = self._process = None


def _export_on_request(requests: "Connection[Any, Any]", run: RunFolder, settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the app asks for a last export then
    os.nice(RATERS_FIRST)
    with open_store(run) as store, suppress(EOFError, BrokenPipeError):  # the app has ended
        while True:
            requests.recv()
            requests.send(_export(store, run, settings))


def _export(store: FeedbackStore, run: RunFolder, settings: Settings) -> str | PictuneError:
    try:
        return export_labels(store, run, settings)
    except (PictuneError, OSError) as error:
        return PictuneError(str(error))

"""Prometheus metrics at `/metrics`: requests, labels and the app's health."""

import time
from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labeling_app.app_state import AppState

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Upper bounds of the histogram's buckets."""


class Metrics(Collector):
    """Metrics of one app; each has a registry, since a process may have several apps."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._requests = Histogram(
            "pictune_request_seconds",
            "Time to answer a request",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=self._registry,
        )

    def add_to(self, app: FastAPI) -> None:
        """Measure all requests of the app and add the route `/metrics`."""
        app.add_middleware(_Stopwatch, requests=self._requests)
        app.add_api_route("/metrics", self.answer, include_in_schema=False)

    def answer(self) -> Response:
        """Return everything in Prometheus's text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def describe(self) -> list[Metric]:
        """Return nothing; otherwise the registry would collect once at the registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the current figures."""
        store, health = self._state.store, self._state.health
        progress, (reported, removed) = store.progress(), store.reports.count()
        counts: list[tuple[str, str, int]] = [
            ("refused", "Bad requests since the start", health.writes_refused),
            ("failed", "Labels that could not be saved since the start", health.writes_failed),
        ]
        for name, meaning, count in counts:
            yield CounterMetricFamily(f"pictune_writes_{name}", meaning, count)
        figures: list[tuple[str, str, float]] = [
            ("labels_done", "Labels that count, at most as many as are wanted", progress.done),
            ("labels_wanted", "Labels wanted", progress.total),
            ("paused", "Whether the campaign is paused", store.is_paused),
            ("images_reported", "Reported images that wait for an admin's decision", reported),
            ("images_removed", "Images that an admin removed", removed),
            ("free_disk_bytes", "Room where labels are kept", self._state.free_disk_bytes),
        ]
        if health.last_export is not None:
            when = ("last_export_timestamp_seconds", "When labels were last exported")
            figures.append((*when, health.last_export.timestamp()))
        for name, meaning, value in figures:
            yield GaugeMetricFamily(f"pictune_{name}", meaning, value)


class _Stopwatch:
    def __init__(self, app: ASGIApp, requests: Histogram) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            # the route's pattern, not the path: ids would make a new series each
            route = getattr(scope.get("route"), "path", "") or "page"
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            seconds = time.perf_counter() - start
            self._requests.labels(method, route, str(status)).observe(seconds)

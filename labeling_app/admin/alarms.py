"""Alarms to the people who lead a campaign: one JSON message to an address of theirs.

The message is `{"text": "..."}`, which Slack, Mattermost and many other services take. It tells
what has become true since the last look: a reported image, a flag, a stall, the end. What was true
when the app started is not told.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx

from data.errors import PictuneError
from data.store.views.overview import latest_labels
from labeling_app.admin import figures
from labeling_app.admin.tables import FLAGS
from labeling_app.app_state import AppState

LOGGER = logging.getLogger(__name__)

EVERY_S = 60
"""Seconds between two looks."""
STALLED_AFTER = timedelta(hours=1)
"""A campaign has stalled if its last answer is older, while answers are still wanted."""
PATIENCE_S = 10
"""Seconds that the address has for its answer; if it fails, the next look sends the message."""


def found(state: AppState, now: datetime) -> dict[str, str]:
    """Return a line for each thing that an admin should know, by a key that names the thing."""
    lines = {
        f"report {image.image_id}": f"an image was reported: {image.prompt}"
        for image in figures.list_reports(state).open
    }
    for rater in figures.measure_quality(state)["raters"]:
        for flag in rater["flags"]:
            lines[f"flag {rater['name']} {flag}"] = f"{rater['name']} {FLAGS[flag]}"
    progress = state.store.progress()
    last = latest_labels(state.store, source="human", limit=1)
    if progress.total and progress.done >= progress.total:
        lines["end"] = f"all {progress.total} labels are there"
    elif last and now - last[0].submitted_at > STALLED_AFTER and not state.store.is_paused:
        left = progress.total - progress.done
        lines["stall"] = f"no answer since {last[0].submitted_at:%H:%M} UTC, {left} are left"
    return lines


async def watch(state: AppState, address: str, ending: asyncio.Event) -> None:
    """Look regularly, and send what is new, until `ending` is set."""
    told: Mapping[str, str] | None = None
    while not ending.is_set():
        with suppress(PictuneError):  # the store cannot be read now, which the app tells itself
            lines = await asyncio.to_thread(found, state, datetime.now(UTC))
            new = {} if told is None else {key: lines[key] for key in lines if key not in told}
            if not new or await asyncio.to_thread(_send, address, "\n".join(new.values())):
                told = lines
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), EVERY_S)


def _send(address: str, text: str) -> bool:
    try:
        httpx.post(
            address, json={"text": f"Pictune: {text}"}, timeout=PATIENCE_S
        ).raise_for_status()
    except httpx.HTTPError as error:
        LOGGER.warning("label.alarm_url: %s; the alarm is sent again", error)
        return False
    return True

"""Exports of the running app, and settings that keep it from starting."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from labeling_app.settings import LabelConfig
from tests.support.labeling_calls import sign_in
from tests.support.labeling_campaign import Campaign, app_of


def test_labels_are_exported_while_the_app_runs_and_when_it_ends(
    open_campaign: Campaign, open_store: FeedbackStore
) -> None:
    exports: list[int] = []
    app = app_of(
        open_store,
        open_campaign.paths,
        LabelConfig(open=True, export_every_s=0.05),
        on_export=lambda: exports.append(1),
    )
    with TestClient(app) as client:
        while len(exports) < 2:  # the second begins when the first was noted
            pass
        assert client.get("/health").json()["last_export"]
        running = len(exports)
    assert len(exports) > running


def test_an_export_that_fails_is_reported_and_does_not_stop_the_app(
    open_campaign: Campaign, open_store: FeedbackStore
) -> None:
    def fail() -> None:
        raise PictuneError("labels/latest: no room left; free some")

    app = app_of(
        open_store,
        open_campaign.paths,
        LabelConfig(open=True, export_every_s=0.01),
        on_export=fail,
    )
    with TestClient(app) as client:
        while not (error := client.get("/health").json()["export_error"]):
            pass
        assert "no room left" in error
        assert sign_in(client)


def test_missing_guidelines_are_a_users_error(open_store: FeedbackStore, tmp_path: Path) -> None:
    with pytest.raises(PictuneError, match="name a Markdown file"):
        app_of(open_store, config=LabelConfig(guidelines=tmp_path / "none.md"))

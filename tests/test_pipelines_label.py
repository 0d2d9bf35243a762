import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import active_children
from pathlib import Path

import pytest
import sqlalchemy as sa

from data.errors import PictuneError
from data.feedback import ChecksConfig
from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from data.store.tables import tasks
from data.tables.parquet import MANIFEST
from pipelines.cli import main
from pipelines.collect.exporter import Exporter
from pipelines.run.campaign import ImageFiles, add_planned_tasks, open_store
from pipelines.settings.config import check, read_toml
from tests.support.data_campaign import Campaign

PATIENCE_S = 120
"""A busy machine may take a minute to end the app."""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    campaign = Campaign(tmp_path / "runs" / "first")
    campaign.store.close()
    return campaign


def place(campaign: Campaign) -> list[str]:
    return ["--runs", str(campaign.root.parent), "--run", campaign.root.name]


def label(campaign: Campaign, *words: str) -> int:
    return main(["label", *place(campaign), *words])


def test_an_app_that_nobody_could_sign_in_to_is_not_served(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(campaign) == 2
    assert "`make rater NAME=...` adds a rater, OPEN=1" in capsys.readouterr().err


def test_a_campaign_whose_files_cannot_be_read_is_not_served(
    campaign: Campaign, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "known.csv").write_text("images,answer\nimages/0.png,great\n")
    for setting in ("label.training", "tasks.gold"):
        assert label(campaign, "--open", "--set", f"{setting}={tmp_path / 'known.csv'}") == 2
        assert "known.csv:2: answer: 'great' is not good" in capsys.readouterr().err


def test_gold_of_a_campaign_is_asked_of_everybody_and_may_be_mended(
    campaign: Campaign, tmp_path: Path
) -> None:
    def gold(*lines: str) -> dict[str, str]:
        (tmp_path / "gold.csv").write_text("\n".join(["images,answer", *lines]))
        settings = check(
            {"tasks": {"gold": str(tmp_path / "gold.csv"), "rankings_per_prompt": 0}},
            ("tasks",),
            "test",
        )
        with open_store(campaign.run, ChecksConfig(gold_share=0.5)) as store:
            add_planned_tasks(store, campaign.run, settings)
            with store.database.read() as connection:
                rows = connection.execute(
                    sa.select(tasks.c.gold_json, tasks.c.overlap).where(
                        tasks.c.gold_source == "gold.csv"
                    )
                ).all()
        assert all(row.overlap == 1000 for row in rows)
        return {row.gold_json: "" for row in rows}

    assert len(gold("images/0.png,good", f"{campaign.image_ids[1]},bad")) == 2
    (fixed,) = gold("images/0.png,unsafe")
    assert '"unsafe"' in fixed


def test_images_that_come_while_the_app_runs_are_found(campaign: Campaign, tmp_path: Path) -> None:
    files = ImageFiles(campaign.run)
    late = Campaign(tmp_path / "late", n_images=4)
    late.store.close()
    new = late.image_ids[3]
    assert files.get(new) is None
    shutil.copy(late.run.images_table, campaign.run.images_table)
    assert files.get(new) == campaign.root / "images" / "3.png"
    assert files.get("unknown") is None


def test_another_database_is_named_in_the_settings(campaign: Campaign, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    run = RunFolder(campaign.root, database_url=url)
    assert (run.store_url, run.has_store) == (url, True)
    assert main(["dataset", *place(campaign), "--set", f"store.url={url}"]) == 0
    with FeedbackStore.open(url) as store:
        assert store.progress().total == 0


class App:
    """`python -m pipelines label` in a process group of its own, with what it prints."""

    def __init__(self, campaign: Campaign, *words: str) -> None:
        # a process that was started in the background ignores SIGINT, and so would this one
        listening = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        start = f"{listening}; runpy.run_module('pipelines', run_name='__main__')"
        command = [
            sys.executable,
            "-c",
            start,
            "label",
            *place(campaign),
            "--open",
            "--port",
            "0",
            *words,
        ]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.started = [self.process.stdout.readline(), self.process.stdout.readline()]

    def end(self, how: signal.Signals) -> tuple[int, str, str]:
        """Send the signal to its processes; return exit status and the rest of both streams."""
        os.killpg(self.process.pid, how)
        printed, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, printed, errors


@contextmanager
def serving(campaign: Campaign, *words: str) -> Iterator[App]:
    app = App(campaign, *words)
    try:
        assert app.started[1].startswith("label at http://127.0.0.1:"), app.started
        yield app
    finally:
        if app.process.poll() is None:
            app.end(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_app_exports_and_ends_with_the_status_of_what_stopped_it(
    campaign: Campaign, how: signal.Signals, status: int
) -> None:
    # often: when it is stopped an export is under way, or its process about to start
    with serving(campaign, "--set", "label.export_every_s=0.01") as app:
        ended, printed, errors = app.end(how)
    assert (ended, printed, errors) == (status, f"label: 0 labels in {campaign.run.latest}\n", "")
    assert (campaign.run.latest / MANIFEST).exists()


@pytest.mark.slow
def test_the_labels_of_a_file_are_served_by_one_app_at_a_time(
    campaign: Campaign, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(campaign) as app:
        address = app.started[1].split(" (")[0]
        assert label(campaign, "--open", "--port", "0", "--set", "tasks.binary_overlap=7") == 2
        told = capsys.readouterr().err
        other = f"process {app.process.pid}, {address}"
        assert f"another `make label` serves these labels ({other}); stop that one" in told
        monkeypatch.setattr(sys, "stdin", io.StringIO("a long password\n"))
        assert main(["rater", *place(campaign), "--name", "Ann"]) == 0
        assert main(["dataset", *place(campaign)]) == 0
        app.end(signal.SIGKILL)
    with serving(campaign):  # a killed one locks nobody out
        pass


def test_nothing_of_a_call_that_failed_is_remembered_and_never_a_port(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(campaign, "--open", "--port", "0", "--set", "label.guidelines=nowhere.md") == 2
    assert "nowhere.md" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert label(campaign, "--open", "--port", str(taken.getsockname()[1])) == 2
        assert "cannot listen there" in capsys.readouterr().err
    assert not campaign.run.config_file.exists()
    with serving(campaign, "--set", "label.gold_bound=0.5"):
        recorded = read_toml(campaign.run.config_file)["label"]
    assert (recorded["gold_bound"], "port" in recorded) == (0.5, False)


def test_a_killed_export_process_is_said_once_and_started_again(campaign: Campaign) -> None:
    with open_store(campaign.run) as store, closing(Exporter(campaign.run)) as exporter:
        store.add_rater("Ann")
        assert [row["name"] for row in exporter.quality({})["raters"]] == ["Ann"]
        assert exporter.export() == f"0 labels in {campaign.run.latest}"
        (child,) = active_children()
        child.kill()
        with pytest.raises(PictuneError, match="was killed; the next export starts another"):
            exporter.export()
        assert exporter.export() == f"0 labels in {campaign.run.latest}"
        campaign.run.images_table.unlink()
        with pytest.raises(PictuneError, match=r"images\.parquet"):
            exporter.export()
    assert not active_children()

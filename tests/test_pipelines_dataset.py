"""Output and exit status of the stage `dataset`."""

from pathlib import Path

import pytest

from pipelines.cli import main
from tests.support.data_campaign import Campaign, answer_all


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    campaign = Campaign(tmp_path / "small")
    for name in ("anna", "bert"):
        answer_all(campaign.store, campaign.store.add_rater(name))
    return campaign


def dataset(campaign: Campaign, *words: str) -> int:
    return main(["dataset", "--runs", str(campaign.root.parent), "--run", "small", *words])


def test_it_exports_checks_and_says_what_there_is(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dataset(campaign) == 0
    printed = capsys.readouterr().out
    assert (
        f"dataset: 7 labels in {campaign.run.latest}: all of it agrees with the store and the files"
        in printed
    )
    assert dataset(campaign, "--check") == 0


def test_a_check_writes_nothing_and_fails_with_a_line_for_each_fault(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dataset(campaign, "--check") == 1
    assert "export the labels first" in capsys.readouterr().out
    assert not campaign.run.latest.exists()
    assert dataset(campaign) == 0
    capsys.readouterr()
    (campaign.run.images_dir / "0.png").unlink()
    (campaign.run.latest / "tasks.parquet").write_bytes(b"damaged")
    assert dataset(campaign, "--check") == 1
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 3
    assert "0.png: the image is gone" in printed.out
    assert "tasks.parquet: not as it was exported" in printed.out
    assert "dataset: 2 faults" in printed.out
    assert dataset(campaign) == 1  # the export fixes the table, not the image


def test_a_check_sees_labels_that_stand_in_the_log_alone_and_writes_nothing(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dataset(campaign) == 0
    campaign.store.undo(campaign.store.add_rater("anna"))
    before = {
        path: path.read_bytes()
        for path in campaign.root.rglob("*")
        if path.is_file() and path.suffix != ".db-shm"
    }
    assert dataset(campaign, "--check") == 1
    assert "1 revisions of labels are newer than the export" in capsys.readouterr().out
    assert {
        path: path.read_bytes()
        for path in campaign.root.rglob("*")
        if path.is_file() and path.suffix != ".db-shm"
    } == before

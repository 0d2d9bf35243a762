"""The stage `dataset`: what it prints and its exit status."""

from pathlib import Path

import pytest

from pipelines.cli import main
from tests.data_campaign import Campaign, answer_all


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    campaign = Campaign(tmp_path / "small")
    for name in ("anna", "bert"):
        answer_all(campaign.store, campaign.store.add_rater(name))
    return campaign


def dataset(campaign: Campaign, *words: str) -> int:
    return main(["dataset", "--runs", str(campaign.root.parent), "--run", "small", *words])


def test_it_exports_checks_and_says_what_there_is(campaign: Campaign, capsys: pytest.CaptureFixture[str]) -> None:
    assert dataset(campaign) == 0
    printed = capsys.readouterr().out
    assert f"dataset: 7 labels in {campaign.run.latest}: all of it agrees with the store and the files" in printed
    assert "6 verdicts: 6 good" in printed
    assert "2 raters" in printed
    assert dataset(campaign, "--check") == 0


def test_a_check_writes_nothing_and_fails_with_a_line_for_each_fault(campaign: Campaign, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert dataset(campaign) == 1  # the export mends the table, not the image


def test_a_target_gets_a_copy_that_is_checked_too(campaign: Campaign, capsys: pytest.CaptureFixture[str]) -> None:
    target = campaign.root.parent / "copy"
    setting = ("--set", f"dataset.target={target}")
    assert dataset(campaign, *setting) == 0
    assert f"a copy in {target}" in capsys.readouterr().out
    (target / "latest" / "tasks.parquet").unlink()
    assert dataset(campaign, "--check", *setting) == 1
    assert f"{target}/latest/tasks.parquet: not as it was exported" in capsys.readouterr().out

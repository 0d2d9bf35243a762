"""Copies of an export in another folder."""

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from data.errors import PictuneError
from data.tables.parquet import export
from data.tables.publication import DatasetConfig, publish, published_faults
from tests.support.data_campaign import Campaign, answer_all


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setattr("data.tables.parquet.PART_ROWS", 3)
    campaign = Campaign(tmp_path / "run")
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    return campaign


def test_a_copy_reads_like_the_original(campaign: Campaign, target: Path) -> None:
    publish(campaign.run, target)
    assert published_faults(campaign.run, target) == []
    for name in ("labels_binary", "raters"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(target / f"latest/{name}.parquet"),
            pd.read_parquet(campaign.run.latest / f"{name}.parquet"),
        )
    assert [path.name for path in (target / "parts").iterdir()] == [
        "labels-000000001-000000003.parquet"
    ]


def test_the_next_export_takes_the_copys_place_and_one_before_is_kept(
    campaign: Campaign, target: Path
) -> None:
    publish(campaign.run, target)
    snapshots = []
    for name in ("bert", "carla"):
        answer_all(campaign.store, campaign.store.add_rater(name))
        export(campaign.store, campaign.run)
        assert published_faults(campaign.run, target) == [
            f"{target}: is not the run's last export; run `make dataset` to copy it there"
        ]
        publish(campaign.run, target)
        assert published_faults(campaign.run, target) == []
        snapshots.append(campaign.run.latest.resolve().name)
    assert {path.name for path in (target / "snapshots").iterdir()} == set(snapshots)


def test_a_damaged_copy_is_noticed_and_made_again(campaign: Campaign, target: Path) -> None:
    publish(campaign.run, target)
    (target / "latest/tasks.parquet").write_bytes(b"damaged")
    (target / "latest/raters.parquet").unlink()
    faults = published_faults(campaign.run, target)
    assert [fault.split(": ")[0].rpartition("/")[2] for fault in faults] == [
        "raters.parquet",
        "tasks.parquet",
    ]
    (target / "latest/_manifest.json").unlink()
    publish(campaign.run, target)
    assert published_faults(campaign.run, target) == []


def test_a_place_that_cannot_be_written_is_one_line(campaign: Campaign, target: Path) -> None:
    target.write_text("a file")
    with pytest.raises(PictuneError, match=f"{target}: cannot be written or read") as raised:
        publish(campaign.run, target)
    assert "\n" not in str(raised.value)


def test_an_address_is_no_folder() -> None:
    with pytest.raises(ValidationError, match="s3://bucket is an address; name a folder"):
        DatasetConfig.model_validate({"target": "s3://bucket"})

"""Copies of an export in a folder and in an S3 server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from data.errors import PictuneError
from data.tables.parquet import export
from data.tables.publication import publish, published_faults
from tests.support.data_campaign import Campaign, answer_all


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an S3 server with the empty bucket `labels`."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("labels")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "elsewhere")
    request.getfixturevalue("server")
    return f"s3://labels/{tmp_path.name}"


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setattr("data.tables.parquet.PART_ROWS", 3)
    campaign = Campaign(tmp_path / "run")
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    return campaign


def test_a_copy_reads_like_the_original(campaign: Campaign, target: str) -> None:
    publish(campaign.run, target)
    assert published_faults(campaign.run, target) == []
    for name in ("labels_binary", "raters"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(f"{target}/latest/{name}.parquet"),
            pd.read_parquet(campaign.run.latest / f"{name}.parquet"),
        )
    files, root = fsspec.core.url_to_fs(target)
    assert [path.rpartition("/")[2] for path in files.ls(f"{root}/parts", detail=False)] == [
        "labels-000000001-000000003.parquet"
    ]


def test_the_next_export_takes_the_copys_place_and_one_before_is_kept(
    campaign: Campaign, target: str
) -> None:
    publish(campaign.run, target)
    files, root = fsspec.core.url_to_fs(target, use_listings_cache=False)
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
    assert sorted(
        path.rstrip("/").rpartition("/")[2] for path in files.ls(f"{root}/snapshots", detail=False)
    ) == sorted(snapshots)


def test_a_damaged_copy_is_noticed_and_made_again(campaign: Campaign, target: str) -> None:
    publish(campaign.run, target)
    files, root = fsspec.core.url_to_fs(target, use_listings_cache=False)
    files.pipe_file(f"{root}/latest/tasks.parquet", b"damaged")
    files.rm(f"{root}/latest/raters.parquet")
    faults = published_faults(campaign.run, target)
    assert [fault.split(": ")[0].rpartition("/")[2] for fault in faults] == [
        "raters.parquet",
        "tasks.parquet",
    ]
    files.rm(f"{root}/latest/_manifest.json")
    publish(campaign.run, target)
    assert published_faults(campaign.run, target) == []


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("target", ["s3://no-such-bucket/labels", "nonsense://labels"])
def test_a_place_that_cannot_be_written_is_one_line(campaign: Campaign, target: str) -> None:
    with pytest.raises(PictuneError, match=f"{target}: cannot be reached") as raised:
        publish(campaign.run, target)
    assert "\n" not in str(raised.value)

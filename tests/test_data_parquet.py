from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from data.errors import PictuneError
from data.feedback import Claim, NewTask
from data.files import sha256_of
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.schema import IMAGES, read_table, write_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels
from data.tables.parquet import PART_ROWS, export, read_manifest
from data.tables.verification import verify
from tests.support.data_campaign import Campaign, answer_all, binary_tasks, claimed, submission


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path)


def latest(campaign: Campaign, table: str) -> pd.DataFrame:
    return pd.read_parquet(campaign.run.latest / f"{table}.parquet")


def hashes(campaign: Campaign) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in campaign.run.labels_dir.rglob("*.parquet")}


def test_every_table_opens_in_plain_pandas(campaign: Campaign) -> None:
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    rows = {path.stem: len(pd.read_parquet(path)) for path in campaign.run.latest.glob("*.parquet")}
    labels = {"labels_binary": 3, "labels_pairs": 3, "labels_ranking": 1, "consensus": 6}
    labels |= {"labels_comparisons": 0}
    assert rows == labels | {"images": 3, "prompts": 1, "raters": 1, "tasks": 4}


def test_exporting_again_gives_the_same_bytes(campaign: Campaign) -> None:
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    first = export(campaign.store, campaign.run)
    before = hashes(campaign)
    written = campaign.run.latest.resolve().stat().st_ino
    assert export(campaign.store, campaign.run) == first == read_manifest(campaign.run)
    assert hashes(campaign) == before
    assert campaign.run.latest.resolve().stat().st_ino == written  # it is left alone


def test_raters_appear_under_salted_hashes_only(campaign: Campaign) -> None:
    rater = campaign.store.add_rater("anna", source="simulated")
    answer_all(campaign.store, rater)
    export(campaign.store, campaign.run)
    (row,) = latest(campaign, "raters").to_dict("records")
    assert row["rater_id"] == campaign.store.public_rater_id(rater)
    facts = [row[name] for name in ("source", "n", "n_skipped", "median_ms")]
    assert facts == ["simulated", 4, 0, 1000.0]
    labels = latest(campaign, "labels_binary")
    assert set(labels["rater_id"]) == {row["rater_id"]}
    assert set(labels["source"]) == {"simulated"}
    tables = campaign.run.latest.glob("*.parquet")
    content = "".join(pd.read_parquet(path).to_csv() for path in tables)
    assert rater not in content
    assert "anna" not in content


def rank(campaign: Campaign, *ranks: int | None) -> Claim:
    """Answer a ranking by these ranks of its images, and export."""
    rater = campaign.store.add_rater("anna")
    claim = campaign.store.claim(rater, kind="ranking")
    assert claim is not None
    answer = RankingAnswer(ranks=dict(zip(claim.task.image_ids, ranks, strict=True)))
    campaign.store.submit(submission(claim, rater, "s", answer))
    export(campaign.store, campaign.run)
    return claim


def test_ranks_and_shown_order_stand_beside_their_images(campaign: Campaign) -> None:
    claim = rank(campaign, 4, 4, None)
    (row,) = latest(campaign, "labels_ranking").to_dict("records")
    assert tuple(row["image_ids"]) == claim.task.image_ids
    assert tuple(row["shown_order"]) == claim.shown_order
    assert [None if pd.isna(rank) else int(rank) for rank in row["ranks"]] == [1, 1, None]
    assert (row["n_images"], row["n_tie_groups"]) == (3, 1)
    assert pd.isna(row["best_image_id"])


def test_pairs_name_the_better_image_and_share_one_ranking_among_them(campaign: Campaign) -> None:
    claim = rank(campaign, 2, 1, 2)
    a, b, c = claim.task.image_ids
    pairs = latest(campaign, "labels_pairs")
    outcomes = {(row.image_id_0, row.image_id_1): row.label_0 for row in pairs.itertuples()}
    assert outcomes == {(a, b): 0.0, (a, c): 0.5, (b, c): 1.0}
    assert pairs["weight"].sum() == pytest.approx(1)
    assert pairs["are_different"].tolist() == [True, False, True]
    place = dict(zip(claim.task.image_ids, claim.shown_order, strict=True))
    expected = [int(place[one] > place[two]) for one, two in ((a, b), (a, c), (b, c))]
    assert pairs["left_shown"].tolist() == expected
    assert latest(campaign, "labels_ranking")["best_image_id"].tolist() == [b]


def test_gold_answers_are_checked_and_counted(campaign: Campaign) -> None:
    store = campaign.store
    for image_id, verdict in (("gold-good", "good"), ("gold-bad", "bad")):
        gold = BinaryAnswer.model_validate({"verdict": verdict})
        task = NewTask(kind="binary", prompt="a cat", image_ids=(image_id,), gold=gold, priority=1)
        store.add_tasks([task])
    answer_all(store, store.add_rater("anna"))
    export(store, campaign.run)
    rows = latest(campaign, "labels_binary").set_index("image_id")["gold_correct"].to_dict()
    assert rows["gold-good"] is True
    assert rows["gold-bad"] is False
    assert all(pd.isna(rows[image_id]) for image_id in campaign.image_ids)
    (rater,) = latest(campaign, "raters").to_dict("records")
    assert (rater["gold_n"], rater["gold_accuracy"]) == (2, 0.5)


def test_full_parts_are_written_once_and_hold_every_revision(campaign: Campaign) -> None:
    rater = campaign.store.add_rater("anna")
    campaign.store.submit(submission(claimed(campaign.store, rater), rater, "first"))
    _fill_with_earlier_revisions(campaign.store, PART_ROWS + 5)
    campaign.store.undo(rater)
    export(campaign.store, campaign.run)
    (part,) = campaign.run.parts.iterdir()
    assert part.name == "labels-000000001-000001000.parquet"
    log = pd.read_parquet(part)
    assert log["sequence"].tolist() == list(range(1, PART_ROWS + 1))
    assert log["revision"].nunique() == PART_ROWS
    written = part.stat().st_mtime_ns
    export(campaign.store, campaign.run)
    assert part.stat().st_mtime_ns == written
    assert verify(campaign.store, campaign.run) == []


def _fill_with_earlier_revisions(store: FeedbackStore, count: int) -> None:
    with store.database.write() as connection:
        row = connection.execute(sa.select(labels)).one()._asdict()
        del row["sequence"]
        names = [f"edit{number}" for number in range(count)]
        copies = [
            {"revision": n, "label_id": name, "submission_id": name, "is_live": False}
            for n, name in enumerate(names, start=2)
        ]
        connection.execute(sa.insert(labels), [row | copy for copy in copies])


def test_a_label_whose_number_is_lower_than_the_last_exported_one_is_exported(
    campaign: Campaign,
) -> None:
    store, rater = campaign.store, campaign.store.add_rater("anna")
    store.submit(submission(claimed(store, rater), rater, "number 2"))
    _renumber(store, "number 2", 2)
    export(store, campaign.run)
    store.submit(submission(claimed(store, rater), rater, "number 1"))
    _renumber(store, "number 1", 1)  # as when PostgreSQL commits the first of two writes last
    export(store, campaign.run)
    assert verify(store, campaign.run) == []
    tables = (latest(campaign, name) for name in ("labels_binary", "labels_ranking"))
    exported = sorted(one for table in tables for one in table["submission_id"])
    assert exported == ["number 1", "number 2"]


def _renumber(store: FeedbackStore, submission_id: str, sequence: int) -> None:
    mine = labels.c.submission_id == submission_id
    with store.database.write() as connection:
        connection.execute(sa.update(labels).where(mine).values(sequence=sequence))


def test_an_export_without_images_says_what_to_do(campaign: Campaign) -> None:
    campaign.run.images_table.unlink()
    with pytest.raises(PictuneError, match=r"images\.parquet: no such file; run the stage"):
        export(campaign.store, campaign.run)


def test_labels_of_images_that_are_gone_are_exported_and_reported(campaign: Campaign) -> None:
    campaign.store.add_tasks(binary_tasks(1))
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    (campaign.run.images_dir / "0.png").unlink()
    (campaign.run.images_dir / "1.png").write_bytes(b"another image")
    gone, changed, orphan = verify(campaign.store, campaign.run)
    assert "0.png: the image is gone" in gone
    assert "1.png: the image is not the one that was labeled" in changed
    assert orphan.startswith("image image0: 1 labels refer to it")
    assert "image0" in set(latest(campaign, "labels_binary")["image_id"])


def test_verify_notices_an_export_that_is_missing_old_or_damaged(campaign: Campaign) -> None:
    assert "export the labels first" in verify(campaign.store, campaign.run)[0]
    export(campaign.store, campaign.run)
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    newer = "4 revisions of labels are newer than the export; export the labels again"
    assert verify(campaign.store, campaign.run) == [f"{campaign.run.latest}: {newer}"]
    export(campaign.store, campaign.run)
    (campaign.run.latest / "tasks.parquet").write_bytes(b"damaged")
    (campaign.run.latest / "raters.parquet").unlink()
    faults = verify(campaign.store, campaign.run)
    assert sorted(fault.split(": ")[1].split(";")[0] for fault in faults) == [
        "not as it was exported",
        "the file is gone",
    ]
    export(campaign.store, campaign.run)
    assert verify(campaign.store, campaign.run) == []
    (campaign.run.latest / "tasks.parquet").write_bytes(b"damaged")
    export(campaign.store, campaign.run)
    assert verify(campaign.store, campaign.run) == []


def test_labels_given_while_the_images_are_checked_are_no_faults(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(campaign.store, campaign.run)

    def answer_meanwhile(path: Path, advice: str) -> None:
        del path, advice
        answer_all(campaign.store, campaign.store.add_rater("anna"))

    monkeypatch.setattr("data.tables.verification.check_image", answer_meanwhile)
    assert verify(campaign.store, campaign.run) == []


def test_verify_compares_every_row_with_the_store(campaign: Campaign) -> None:
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    bad = BinaryAnswer(verdict="bad").model_dump_json()
    changed = sa.update(labels).where(labels.c.sequence == 1).values(answer_json=bad)
    with campaign.store.database.write() as connection:
        connection.execute(changed)
    (fault,) = verify(campaign.store, campaign.run)
    assert "labels_binary.parquet: differs from the store" in fault


def test_verify_notices_what_is_no_image_and_what_nobody_exported(campaign: Campaign) -> None:
    export(campaign.store, campaign.run)
    (campaign.run.latest / "extra.parquet").write_bytes(b"")
    (fault,) = verify(campaign.store, campaign.run)
    assert "extra.parquet: the export does not know this file" in fault
    (campaign.run.latest / "extra.parquet").unlink()
    rows = read_table(campaign.run.images_table, IMAGES).to_pylist()
    (campaign.run.images_dir / "text.png").write_text("no image")
    text = {"image_id": sha256_of(campaign.run.images_dir / "text.png")}
    rows += [rows[0] | text | {"path": "images/text.png", "prompt_id": "lost"}]
    write_table(pa.Table.from_pylist(rows, schema=IMAGES), IMAGES, campaign.run.images_table)
    export(campaign.store, campaign.run)
    unreadable, lost = verify(campaign.store, campaign.run)
    assert "text.png: cannot be read as an image" in unreadable
    assert "lacks prompt lost" in lost


def test_an_export_keeps_the_one_before_for_readers_that_are_in_it(campaign: Campaign) -> None:
    export(campaign.store, campaign.run)
    first = campaign.run.latest.resolve()
    for name in ("anna", "bert"):
        campaign.store.add_rater(name)
        assert first.is_dir()
        export(campaign.store, campaign.run)
    assert not first.exists()
    assert len([path for path in campaign.run.snapshots.iterdir() if path.is_dir()]) == 2


def test_an_export_takes_the_place_of_a_plain_folder_without_losing_what_others_put_there(
    campaign: Campaign,
) -> None:
    export(campaign.store, campaign.run)
    folder = campaign.run.latest.resolve()
    campaign.run.latest.unlink()
    folder.rename(campaign.run.latest)
    (campaign.run.latest / "notes.txt").write_text("mine")
    for name in ("anna", "bert", "carla"):
        campaign.store.add_rater(name)
        export(campaign.store, campaign.run)
    assert campaign.run.latest.is_symlink()
    assert [path.read_text() for path in campaign.run.snapshots.glob("*/notes.txt")] == ["mine"]

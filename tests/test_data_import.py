"""Import of files by others: what arrives in the run, once, whole, and beside other imports."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.errors import PictuneError
from data.feedback import NewTask
from data.formats.landing import Imported, import_records
from data.formats.records import BadRow, Record
from data.formats.registry import FORMATS
from data.kinds.verdict import BinaryAnswer
from data.store.imported import Added, ImportedLabel
from data.tables.parquet import export
from data.tables.verification import verify
from tests.support import exchange_files as files
from tests.support.data_campaign import START, Campaign, answer_all, open_store
from tests.support.exchange_run import (
    PICK_A_PIC_ROWS,
    SOURCES,
    ExchangeRun,
    pairs_in,
)


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        ("Pick-a-Pic", (5, 3, 2, 2)),
        ("ranks.json", (4, 1, 2, 2)),
        ("folder", (2, 0, 0, 0)),
    ],
)
def test_an_import_lands_like_any_other_feedback_and_only_once(
    tmp_path: Path, exchange: ExchangeRun, source: str, counts: tuple[int, int, int, int]
) -> None:
    """The counts are of images, tasks, labels and raters."""
    name, make = SOURCES[source]
    path = make(tmp_path / "source")
    new = exchange.take(name, path)
    assert (new.images, new.feedback.tasks, new.feedback.labels, new.feedback.raters) == counts
    before = exchange.files(), exchange.contents()
    assert exchange.take(name, path) == Imported(0, 0, Added(0, 0, 0))
    assert (exchange.files(), exchange.contents()) == before
    assert set(exchange.table("labels_ranking")["source"]) <= {"imported"}
    with open_store(exchange.run.root) as store:
        assert list(verify(store, exchange.run)) == []


def test_what_an_import_says_of_each_image_is_kept(tmp_path: Path, exchange: ExchangeRun) -> None:
    exchange.take("folder", files.folder_with_csv(tmp_path / "folder"))
    rows = exchange.table("images").set_index("prompt")
    facts = rows.loc["a cat, asleep"]
    names = ("model_id", "seed", "width", "height", "format")
    assert [facts[name] for name in names] == ["sd", 5, 4, 3, "png"]
    assert rows["model_id"].isna().to_dict()["<b>a dog</b>"]


def test_an_unanswered_pair_is_left_to_raters_and_an_answered_one_is_not(
    exchange: ExchangeRun,
) -> None:
    exchange.take_pairs(*PICK_A_PIC_ROWS)
    with open_store(exchange.run.root) as store:
        receipts = answer_all(store, store.add_rater("anna"))
        assert len(receipts) == 1
        export(store, exchange.run)
        assert set(exchange.table("labels_ranking")["source"]) == {"human", "imported"}


def test_a_later_answer_of_a_rater_is_a_revision_and_can_be_undone(exchange: ExchangeRun) -> None:
    for first, second in ((1, 2), (2, 1)):
        row = files.pick_a_pic_row(first, second, 1.0)
        assert exchange.take_pairs(row).feedback.labels == 1
    (label,) = exchange.table("labels_ranking").to_dict("records")
    assert label["revision"] == 2
    assert (list(label["ranks"]), list(label["shown_order"])) == ([2, 1], [1, 0])
    with open_store(exchange.run.root) as store:
        rater = store.rater_id_of("imported", "pick-a-pic 7")
        assert store.undo(rater) is not None
        export(store, exchange.run)
    assert exchange.table("labels_ranking").empty


def test_two_answers_of_a_rater_in_one_file_are_both_kept_and_a_copied_row_counts_once(
    exchange: ExchangeRun, tmp_path: Path
) -> None:
    first, second = files.pick_a_pic_row(1, 2, 1.0), files.pick_a_pic_row(2, 1, 1.0, ranking_id=5)
    third = first | {"ranking_id": 6}  # the same once more, at the same time
    assert exchange.take_pairs(first, second, first, third).feedback.labels == 3
    assert len(exchange.table("labels_ranking")) == 3
    assert list(exchange.table("tasks")["overlap"]) == [3]  # nobody else is asked
    out = exchange.give("pick-a-pic", tmp_path / "out")
    assert pairs_in(out / "pairs.parquet") == pairs_in(
        files.write_pick_a_pic(tmp_path / "wanted.parquet", [first, second, third])
    )


def test_an_import_leaves_labels_and_images_of_the_run_alone(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "mine")
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    mine = ExchangeRun(tmp_path / "mine")
    before = mine.contents()
    campaign.store.close()
    mine.take_pairs(files.pick_a_pic_row(1001, 1002, 1.0))
    after = mine.contents()
    for what in ("images", "labels", "tasks"):
        assert {key: after[what][key] for key in before[what]} == before[what]
        assert len(after[what]) > len(before[what])


def test_two_imports_at_once_keep_each_others_images_and_prompts(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    row = files.pick_a_pic_row
    exchange.take_pairs(row(1, 2, 1.0))
    mine = files.write_pick_a_pic(tmp_path / "mine.parquet", [row(2, 3, 1.0), row(5, 6, 1.0)])

    read = FORMATS["pick-a-pic"].read
    assert read is not None
    read_mine = read(mine)

    def records() -> Iterator[Record | BadRow]:
        yield from read_mine
        theirs = row(5, 6, 1.0, model_0="theirs")
        exchange.take_pairs(row(3, 4, 1.0), theirs, row(8, 9, 1.0, caption="a dog"))

    with open_store(exchange.run.root, exchange.clock) as store:
        import_records(records(), "pick-a-pic", exchange.run, store, now=START)
        export(store, exchange.run)
        assert verify(store, exchange.run) == []
    contents = exchange.contents()
    assert [len(contents[what]) for what in ("images", "prompts", "labels")] == [8, 2, 5]
    assert "theirs" in [one["model_id"] for one in contents["images"].values()]  # the known row


def test_the_largest_image_is_imported(exchange: ExchangeRun) -> None:
    row = files.pick_a_pic_row(1, 2, 1.0, jpg_0=files.large_png(4096, 4096))
    assert exchange.take_pairs(row).images == 2
    assert sorted(exchange.table("images")["width"]) == [4, 4096]


def test_what_a_killed_import_left_is_removed_by_the_next_one_and_a_running_ones_images_are_not(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    rows = [files.pick_a_pic_row(2 * number, 2 * number + 1, 1.0) for number in range(200)]
    source = files.write_pick_a_pic(tmp_path / "train.parquet", rows)
    words = ["import", "--runs", str(tmp_path), "--run", "run", "--from", str(source)]
    words += ["--format", "pick-a-pic"]
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], stderr=subprocess.DEVNULL
    ) as importing:
        while not list(tmp_path.glob(".import-*/*.png")):  # the run is a new one
            assert importing.poll() is None
            time.sleep(0.001)
        importing.kill()
    (left,) = tmp_path.glob(".import-*")
    assert not exchange.run.root.exists()

    read = FORMATS["pick-a-pic"].read
    assert read is not None
    read_mine = read(source)

    def records() -> Iterator[Record | BadRow]:
        yield next(read_mine)
        (mine,) = exchange.run.root.glob(".import-*")
        assert not left.exists()
        waiting = list(mine.iterdir())
        exchange.take("folder", files.folder_with_ranks(tmp_path / "other"))
        assert list(mine.iterdir()) == waiting != []
        yield from read_mine

    with open_store(exchange.run.root, exchange.clock) as store:
        new = import_records(records(), "pick-a-pic", exchange.run, store, now=START)
        export(store, exchange.run)
        assert verify(store, exchange.run) == []
    assert (new.images, new.feedback.labels) == (400, 200)
    assert not list(tmp_path.rglob(".import-*"))


def test_labels_are_taken_back_when_the_files_cannot_be_put_in_place(tmp_path: Path) -> None:
    task = NewTask(kind="binary", prompt="a cat", image_ids=("i",))
    answer = BinaryAnswer(verdict="good")
    label = ImportedLabel(
        submission_id="s", rater="r", source="imported", task=task, answer=answer, shown_order=(0,)
    )

    def fail() -> None:
        raise PictuneError("the disk is full")

    with open_store(tmp_path) as store:
        with pytest.raises(PictuneError, match="disk is full"):
            store.import_labels([task], [label], finish=fail)
        assert store.progress().total == 0
        assert store.import_labels([task], [label], finish=lambda: None).labels == 1
        assert store.progress().done == 1

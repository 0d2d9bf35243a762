"""Import from and export to other people's formats."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import PictuneError
from data.feedback import BinaryAnswer, NewTask, RankingAnswer
from data.files import sha256_of
from data.formats.landing import Imported, import_records
from data.formats.latest import FIELDS, Latest, fields_table
from data.formats.records import Record
from data.formats.registry import FORMATS, export_to
from data.imported import Added, ImportedLabel
from data.parquet import export
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, read_table, write_table
from data.verification import verify
from tests import exchange_files as files
from tests.data_campaign import START, Campaign, Clock, answer_all, open_store, submission

Contents = dict[str, Any]
LARGE = files.large_png(13_000, 13_000)
PAIRS = [
    files.pick_a_pic_row(1, 2, 1.0),
    files.pick_a_pic_row(2, 3, 0.5, user_id=8),
    files.pick_a_pic_row(4, 5, None),
]
SOURCES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "HPDv2 test": ("hpdv2", files.hpdv2_test),
    "HPDv2 train": ("hpdv2", files.hpdv2_train),
    "ImageReward test": ("image-reward", files.image_reward_test),
    "ImageRewardDB": ("image-reward", files.image_reward_database),
    "open-image-preferences": ("open-image-preferences", files.open_image_preferences),
    "folder": ("folder", files.folder_with_csv),
    "Pick-a-Pic": (
        "pick-a-pic",
        lambda folder: files.write_pick_a_pic(folder / "train-0.parquet", PAIRS).parent,
    ),
}


class Run:
    """A run folder that imports and exports."""

    def __init__(self, root: Path) -> None:
        self.run = RunFolder(root)
        self.clock = Clock()

    def take(self, source_format: str, source: Path) -> Imported:
        read = FORMATS[source_format].read
        assert read is not None
        with open_store(self.run.root, self.clock) as store:
            imported = import_records(read(source), source_format, self.run, store, now=START)
            export(store, self.run)
        return imported

    def give(self, target_format: str, target: Path) -> Path:
        export_to(target_format, Latest(self.run), target)
        return target

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.run.latest / f"{name}.parquet")

    def contents(self) -> Contents:
        """All that a run says, apart from how it calls raters and when it was made."""
        latest = Latest(self.run)
        volatile = ("label_id", "rater_id", "revision")
        labels = [*latest.verdicts, *latest.rankings]
        by_rater: dict[str, set[str]] = {}
        for label in labels:
            by_rater.setdefault(label["rater_id"], set()).add(label["submission_id"])
        return {
            "images": {
                key: {k: v for k, v in row.items() if k != "path"}
                for key, row in latest.images.items()
            },
            "prompts": latest.prompts,
            "tasks": {
                row["task_id"]: {k: v for k, v in row.items() if k != "created_at"}
                for row in latest.tasks
            },
            "labels": {
                row["submission_id"]: {k: v for k, v in row.items() if k not in volatile}
                for row in labels
            },
            "raters": sorted(map(sorted, by_rater.values())),
        }

    def files(self) -> dict[str, str]:
        """The run's files with their hashes, without the store's own."""
        found = [
            path
            for path in self.run.root.rglob("*")
            if path.is_file() and "feedback.db" not in path.name
        ]
        return {str(path.relative_to(self.run.root)): sha256_of(path) for path in found}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        ("Pick-a-Pic", (5, 3, 2, 2)),
        ("HPDv2 test", (4, 1, 2, 2)),
        ("HPDv2 train", (2, 1, 2, 2)),
        ("ImageReward test", (3, 1, 1, 1)),
        ("ImageRewardDB", (2, 1, 1, 1)),
        ("open-image-preferences", (2, 1, 3, 3)),
        ("folder", (2, 0, 0, 0)),
    ],
)
def test_an_import_lands_like_any_other_feedback_and_only_once(
    tmp_path: Path, run: Run, source: str, counts: tuple[int, int, int, int]
) -> None:
    """The counts are of images, tasks, labels and raters."""
    name, make = SOURCES[source]
    path = make(tmp_path / "source")
    new = run.take(name, path)
    assert (new.images, new.feedback.tasks, new.feedback.labels, new.feedback.raters) == counts
    before = run.files(), run.contents()
    again = run.take(name, path)
    assert (
        again.images,
        again.prompts,
        again.feedback.tasks,
        again.feedback.labels,
        again.feedback.raters,
    ) == (0, 0, 0, 0, 0)
    assert (run.files(), run.contents()) == before
    assert set(run.table("labels_ranking")["source"]) <= {"imported"}
    with open_store(run.run.root) as store:
        assert list(verify(store, run.run)) == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_dataset_folder_carries_all_of_an_import_to_another_run(
    tmp_path: Path, run: Run, source: str
) -> None:
    name, make = SOURCES[source]
    run.take(name, make(tmp_path / "source"))
    other = Run(tmp_path / "other")
    other.take("dataset", run.give("dataset", tmp_path / "out"))
    assert other.contents() == run.contents()
    kept = run.run.root / "imported.parquet"
    assert not kept.exists() or pd.read_parquet(kept).equals(
        pd.read_parquet(other.run.root / "imported.parquet")
    )


def test_a_dataset_folder_carries_verdicts_gold_and_circumstances(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "mine")
    gold = BinaryAnswer(verdict="bad").model_dump_json()
    campaign.store.add_tasks(
        [
            NewTask(
                kind="binary",
                prompt="a cat",
                image_ids=(campaign.image_ids[0],),
                gold_json=gold,
                gold_source="me",
            )
        ]
    )
    for source in ("human", "simulated"):
        answer_all(campaign.store, campaign.store.add_rater("anna", source=source))
    export(campaign.store, campaign.run)
    mine, other = Run(campaign.run.root), Run(tmp_path / "other")
    other.take("dataset", mine.give("dataset", tmp_path / "out"))
    assert other.contents() == mine.contents()
    assert set(other.table("raters")["source"]) == {"human", "simulated"}


def test_what_an_import_says_of_each_image_and_label_is_kept(tmp_path: Path, run: Run) -> None:
    run.take("open-image-preferences", files.open_image_preferences(tmp_path / "source"))
    labels = run.table("labels_ranking")
    assert sorted(labels["comment"].dropna()) == ["both_good"]
    assert sorted(labels["skip_reason"].dropna()) == ["discarded"]
    assert [
        [None if pd.isna(rank) else int(rank) for rank in ranks] for ranks in labels["ranks"]
    ] == [[1, 1], [1, 2], [None, None]]
    assert list(run.table("prompts")["category"]) == ["Manga"]
    images = run.table("images")
    assert sorted(images["model_id"]) == ["dev", "sd"]
    assert images["source_uri"].str.startswith("https://huggingface.co/datasets/someone").all()
    run.take("folder", files.folder_with_csv(tmp_path / "folder"))
    row = run.table("images").set_index("prompt").loc["a cat, asleep"]
    assert (row["model_id"], row["seed"], row["width"], row["height"], row["format"]) == (
        "sd",
        5,
        4,
        3,
        "png",
    )
    assert run.table("images").set_index("prompt")["model_id"].isna().to_dict() == {
        "a cat, asleep": False,
        "<b>a dog</b>": True,
        "a manga street": False,
    }


def test_an_unanswered_pair_is_left_to_raters_and_an_answered_one_is_not(
    run: Run, tmp_path: Path
) -> None:
    run.take("pick-a-pic", files.write_pick_a_pic(tmp_path / "pairs.parquet", PAIRS))
    with open_store(run.run.root) as store:
        receipts = answer_all(store, store.add_rater("anna"))
        assert len(receipts) == 1
        export(store, run.run)
        assert set(run.table("labels_ranking")["source"]) == {"human", "imported"}


def test_a_later_answer_of_a_rater_is_a_revision_and_can_be_undone(
    run: Run, tmp_path: Path
) -> None:
    for number, row in enumerate(
        [files.pick_a_pic_row(1, 2, 1.0), files.pick_a_pic_row(2, 1, 1.0, ranking_id=5)]
    ):
        assert (
            run.take(
                "pick-a-pic", files.write_pick_a_pic(tmp_path / f"{number}.parquet", [row])
            ).feedback.labels
            == 1
        )
    (label,) = run.table("labels_ranking").to_dict("records")
    assert (label["revision"], list(label["ranks"]), list(label["shown_order"])) == (
        2,
        [2, 1],
        [1, 0],
    )
    with open_store(run.run.root) as store:
        rater = store.rater_id_of("imported", "pick-a-pic 7")
        assert store.undo(rater) is not None
        export(store, run.run)
    assert run.table("labels_ranking").empty


def test_two_answers_of_a_rater_in_one_file_are_both_kept_and_a_copied_row_counts_once(
    run: Run, tmp_path: Path
) -> None:
    first, second = files.pick_a_pic_row(1, 2, 1.0), files.pick_a_pic_row(2, 1, 1.0, ranking_id=5)
    source = files.write_pick_a_pic(tmp_path / "pairs.parquet", [first, second, first])
    assert run.take("pick-a-pic", source).feedback.labels == 2
    assert len(run.table("labels_ranking")) == 2
    out = run.give("pick-a-pic", tmp_path / "out")
    assert _pairs_in(out / "pairs.parquet") == _pairs_in(
        files.write_pick_a_pic(tmp_path / "wanted.parquet", [first, second])
    )


def test_an_import_leaves_labels_and_images_of_the_run_alone(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "mine")
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    mine = Run(tmp_path / "mine")
    before = mine.contents()
    campaign.store.close()
    mine.take(
        "pick-a-pic",
        files.write_pick_a_pic(tmp_path / "pairs.parquet", [files.pick_a_pic_row(1001, 1002, 1.0)]),
    )
    after = mine.contents()
    for what in ("images", "labels", "tasks"):
        assert {key: after[what][key] for key in before[what]} == before[what]
        assert len(after[what]) > len(before[what])


def _bad_csv(folder: Path, line: str) -> Path:
    path = files.folder_with_csv(folder)
    files.write_images(folder, ["53.png"])
    with (path / "prompts.csv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return path


def _dataset(folder: Path, **prompt: str) -> Path:
    """A dataset folder whose first prompt says something else."""
    campaign = Campaign(folder / "run")
    export(campaign.store, campaign.run)
    export_to("dataset", Latest(campaign.run), folder / "out")
    path = folder / "out" / "data" / "prompts.parquet"
    pq.write_table(
        pa.Table.from_pylist(
            [row | prompt for row in pq.read_table(path).to_pylist()], schema=PROMPTS
        ),
        path,
    )
    return folder / "out"


def _kept(folder: Path, text: str) -> Path:
    """A dataset folder that says this of what an import kept."""
    path = _dataset(folder)
    row = {"format": "hpdv2", "what": "task", "id": "t", "fields_json": text}
    pq.write_table(pa.Table.from_pylist([row], schema=FIELDS), path / "data" / "imported.parquet")
    return path


def _pairs(**changes: Any) -> Callable[[Path], Path]:
    rows = [files.pick_a_pic_row(1, 2, 1.0), files.pick_a_pic_row(3, 4, 1.0) | changes]
    return lambda folder: files.write_pick_a_pic(folder / "train.parquet", rows)


def _hpdv2(**changes: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = files.hpdv2_test(folder)
        (row,) = json.loads(path.read_text())
        return files.write_json(path, [row, row | changes])

    return make


@pytest.mark.parametrize(
    ("name", "make", "fault"),
    [
        (
            "pick-a-pic",
            _pairs(caption=""),
            r"train\.parquet: row 2, column caption: is '', not a text",
        ),
        ("pick-a-pic", _pairs(label_0=0.3), r"row 2, column label_0: is 0\.3, not one of"),
        (
            "pick-a-pic",
            _pairs(label_1=0.5),
            r"row 2, column label_1: is 0\.5 where label_0 is 1\.0",
        ),
        (
            "pick-a-pic",
            _pairs(best_image_uid="uid-4"),
            r"row 2, column best_image_uid: is the image that",
        ),
        (
            "pick-a-pic",
            _pairs(jpg_1=b"no picture"),
            r"row 2, column jpg_1: is not an image that can be read",
        ),
        (
            "pick-a-pic",
            _pairs(jpg_1=files.picture(3)[:45]),
            r"row 2, column jpg_1: is not an image that can be read",
        ),
        (
            "pick-a-pic",
            _pairs(jpg_1=files.picture(3, "GIF")),
            r"row 2, column jpg_1: is an image, but neither",
        ),
        (
            "pick-a-pic",
            _pairs(jpg_1=LARGE),
            r"row 2, column jpg_1: has 13000 x 13000 pixels, more than 16,777,216 .*; make it smaller",
        ),
        (
            "pick-a-pic",
            _pairs(jpg_1=files.large_png(4096, 4097)),
            r"row 2, column jpg_1: has 4096 x 4097 pixels",
        ),
        ("pick-a-pic", _pairs(jpg_0=None), r"row 2, column jpg_0: has no image bytes"),
        (
            "pick-a-pic",
            _pairs(jpg_1=files.picture(3)),
            r"row 2, column jpg_1: an image stands in the task twice",
        ),
        (
            "pick-a-pic",
            _pairs(user_id=None),
            r"row 2, column user_id: is empty, not a whole number",
        ),
        (
            "pick-a-pic",
            _pairs(jpg_0=files.picture(1), caption="a dog"),
            r"row 2, column jpg_0: the same image stands under another prompt",
        ),
        (
            "hpdv2",
            _hpdv2(rank=[1, 2]),
            r"test\.json: row 2, column rank: has 2 entries where 4 are wanted",
        ),
        (
            "hpdv2",
            _hpdv2(rank="first"),
            r"row 2, column rank: is 'first', not a list of whole numbers",
        ),
        (
            "hpdv2",
            _hpdv2(raw_annotations=[{"user_hash": "x"}]),
            r"row 2, column raw_annotations\[0\]\.rank: is empty",
        ),
        (
            "hpdv2",
            _hpdv2(image_path=["61.png", "62.png", "63.png", "../run/x.png"]),
            r"column image_path\[3\]: .* not a path within",
        ),
        (
            "hpdv2",
            _hpdv2(image_path=["61.png", "62.png", "63.png", "/etc/hostname"]),
            r"column image_path\[3\]: .* not a path within",
        ),
        (
            "hpdv2",
            _hpdv2(image_path=["61.png", "62.png", "63.png", "9.png"]),
            r"column image_path\[3\]: no image 9\.png in",
        ),
        ("hpdv2", _hpdv2(prompt=None), r"row 2, column prompt: is empty, not a text"),
        (
            "hpdv2",
            lambda folder: _text(folder / "test.json", "[{"),
            r"test\.json:1: not valid JSON",
        ),
        (
            "hpdv2",
            lambda folder: _text(folder / "test.json", files.deep_json(100_000)),
            r"test\.json: cannot be read as JSON \(it is nested",
        ),
        (
            "hpdv2",
            lambda folder: _text(folder / "test.json", f"[{files.long_number(5000)}]"),
            r"test\.json: cannot be .* too many digits",
        ),
        (
            "hpdv2",
            lambda folder: _text(folder / "test.json", "\ufeff{}"),
            r"test\.json: holds no list of rows",
        ),
        (
            "hpdv2",
            lambda folder: _text(folder / "test.json", "{}"),
            r"test\.json: holds no list of rows",
        ),
        ("hpdv2", lambda folder: folder, r"holds no \.json file"),
        (
            "image-reward",
            lambda folder: files.write_json(folder / "t.json", [{"prompt": "x"}]),
            r"row 1, column generations: is missing",
        ),
        (
            "folder",
            lambda folder: _bad_csv(folder, "51.png,a cat,,,,many"),
            r"prompts\.csv: row 3, column seed: is 'many', not a number",
        ),
        (
            "folder",
            lambda folder: _bad_csv(folder, "51.png,,,,,"),
            r"row 3, column prompt: is '', not a text",
        ),
        (
            "folder",
            lambda folder: _bad_csv(folder, "51.png,a cat,,dev,,"),
            r"row 3, column split: is 'dev', not one of",
        ),
        (
            "folder",
            lambda folder: _text(folder / "a.csv", "file,prompt\n"),
            r"a\.csv: row 1, column file_name: is missing",
        ),
        (
            "folder",
            lambda folder: _bad_csv(folder, f"53.png,a cat,,,,{2**64 - 1}"),
            r"column seed: is 18446744073709551615, which does not fit",
        ),
        (
            "folder",
            lambda folder: _bad_csv(folder, "http://[bad/x.png,a cat,,,,"),
            r"row 3, column file_name: 'http://\[bad/x\.png' is not an address",
        ),
        ("dataset", lambda folder: folder, r"holds no folder data/"),
        (
            "dataset",
            lambda folder: _dataset(folder, split="../../escaped"),
            r"prompts\.parquet: row 1, column split: is '\.\./",
        ),
        (
            "pick-a-pic",
            lambda folder: _text(folder / "a.parquet", "no"),
            r"a\.parquet: not a Parquet file",
        ),
        (
            "pick-a-pic",
            lambda folder: files.damage_footer(_pairs()(folder)),
            r"train\.parquet: not a Parquet file that can be read",
        ),
        (
            "dataset",
            lambda folder: _kept(folder, files.deep_json(100_000)),
            r"imported\.parquet: row 1, column fields_json: cannot",
        ),
        (
            "dataset",
            lambda folder: _kept(folder, "[]"),
            r"row 1, column fields_json: is no JSON object",
        ),
        (
            "pick-a-pic",
            lambda folder: folder / "nowhere.parquet",
            r"nowhere\.parquet: no such file",
        ),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_imported(
    tmp_path: Path, run: Run, name: str, make: Callable[[Path], Path], fault: str
) -> None:
    run.take(
        "pick-a-pic",
        files.write_pick_a_pic(
            tmp_path / "first.parquet", [files.pick_a_pic_row(101, 102, 1.0, caption="first")]
        ),
    )
    before = run.files(), run.contents()
    (tmp_path / "source").mkdir()
    with pytest.raises(PictuneError, match=fault) as caught:
        run.take(name, make(tmp_path / "source"))
    assert "\n" not in str(caught.value)
    with open_store(run.run.root) as store:
        export(store, run.run)
    assert (run.files(), run.contents()) == before


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_json_that_can_just_be_read_can_be_kept_and_written_as_well(
    tmp_path: Path, run: Run
) -> None:
    path = files.image_reward_test(tmp_path)
    (row,) = json.loads(path.read_text())
    refused = []
    for depth in range(800, 1001, 40):
        path.write_text(
            json.dumps([row | {"id": "deep"}]).replace('"deep"', files.deep_json(depth))
        )
        try:
            run.take("image-reward", path)
        except PictuneError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 6
    assert all("nested too deep" in line for line in refused)


def test_what_an_import_kept_cannot_choose_the_files_of_an_export(tmp_path: Path, run: Run) -> None:
    run.take("pick-a-pic", files.write_pick_a_pic(tmp_path / "train-0.parquet", PAIRS))
    path = fields_table(run.run)
    kept = [
        row | {"fields_json": json.dumps(json.loads(row["fields_json"]) | {"split": "../away"})}
        for row in pq.read_table(path).to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(kept, schema=FIELDS), path)
    assert [file.name for file in run.give("pick-a-pic", tmp_path / "out").iterdir()] == [
        "train.parquet"
    ]
    assert not list(tmp_path.glob("away*"))


def test_two_imports_at_once_keep_each_others_images_and_prompts(tmp_path: Path, run: Run) -> None:
    run.take(
        "pick-a-pic",
        files.write_pick_a_pic(tmp_path / "first.parquet", [files.pick_a_pic_row(1, 2, 1.0)]),
    )
    mine = files.write_pick_a_pic(
        tmp_path / "mine.parquet",
        [files.pick_a_pic_row(2, 3, 1.0), files.pick_a_pic_row(5, 6, 1.0)],
    )
    theirs = files.write_pick_a_pic(
        tmp_path / "theirs.parquet",
        [files.pick_a_pic_row(3, 4, 1.0), files.pick_a_pic_row(8, 9, 1.0, caption="a dog")],
    )

    read = FORMATS["pick-a-pic"].read
    assert read is not None
    read_mine = read(mine)

    def records() -> Iterator[Record]:
        yield from read_mine
        run.take("pick-a-pic", theirs)

    with open_store(run.run.root, run.clock) as store:
        import_records(records(), "pick-a-pic", run.run, store, now=START)
        export(store, run.run)
        assert verify(store, run.run) == []
    contents = run.contents()
    assert [len(contents[what]) for what in ("images", "prompts", "labels")] == [8, 2, 5]
    assert len(pq.read_table(fields_table(run.run))) == 5


def test_the_largest_image_is_imported(tmp_path: Path, run: Run) -> None:
    rows = [files.pick_a_pic_row(1, 2, 1.0, jpg_0=files.large_png(4096, 4096))]
    assert (
        run.take("pick-a-pic", files.write_pick_a_pic(tmp_path / "train.parquet", rows)).images == 2
    )
    assert sorted(run.table("images")["width"]) == [4, 4096]


def test_an_image_of_an_earlier_import_that_is_too_large_is_one_line(
    tmp_path: Path, run: Run
) -> None:
    run.take("hpdv2", files.hpdv2_test(tmp_path / "source"))
    images = read_table(run.run.images_table, IMAGES)
    changed = images.slice(0, 1).to_pylist()[0] | {"image_id": hashlib.sha256(LARGE).hexdigest()}
    (run.run.root / changed["path"]).write_bytes(LARGE)
    write_table(
        pa.concat_tables([pa.Table.from_pylist([changed], schema=images.schema), images.slice(1)]),
        IMAGES,
        run.run.images_table,
    )
    with open_store(run.run.root) as store:
        lines = [line for line in verify(store, run.run) if "13000 x 13000" in line]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"{run.run.root / changed['path']}: has 13000 x 13000 pixels, more than 16,777,216"
    )


def test_what_a_killed_import_left_is_removed_by_the_next_one_and_a_running_ones_images_are_not(
    tmp_path: Path, run: Run
) -> None:
    rows = [files.pick_a_pic_row(2 * number, 2 * number + 1, 1.0) for number in range(200)]
    source = files.write_pick_a_pic(tmp_path / "train.parquet", rows)
    words = [
        "import",
        "--runs",
        str(tmp_path),
        "--run",
        "run",
        "--format",
        "pick-a-pic",
        "--from",
        str(source),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], stderr=subprocess.DEVNULL
    ) as importing:
        while not list(run.run.root.glob(".import-*/*.png")):
            assert importing.poll() is None
            time.sleep(0.001)
        importing.kill()
    (left,) = run.run.root.glob(".import-*")

    read = FORMATS["pick-a-pic"].read
    assert read is not None
    read_mine = read(source)

    def records() -> Iterator[Record]:
        yield next(read_mine)
        (mine,) = (folder for folder in run.run.root.glob(".import-*") if folder != left)
        waiting = list(mine.iterdir())
        run.take("hpdv2", files.hpdv2_test(tmp_path / "other"))
        assert list(mine.iterdir()) == waiting != []
        yield from read_mine

    with open_store(run.run.root, run.clock) as store:
        new = import_records(records(), "pick-a-pic", run.run, store, now=START)
        export(store, run.run)
        assert verify(store, run.run) == []
    assert (new.images, new.feedback.labels) == (400, 200)
    assert not list(run.run.root.glob(".import-*"))


@pytest.mark.parametrize("linked", ["an image", "a folder of images", "the table"])
def test_a_link_out_of_the_source_is_refused_and_one_within_it_is_followed(
    tmp_path: Path, run: Run, linked: str
) -> None:
    source = files.hpdv2_test(tmp_path / "source").parent
    path = (
        source
        / {"an image": "test/61.png", "a folder of images": "test", "the table": "test.json"}[
            linked
        ]
    )
    moved = path.rename(tmp_path / "private")
    path.symlink_to(moved)
    with pytest.raises(
        PictuneError,
        match=rf"is a link out of {source}, to {tmp_path}/private.*; put the file itself there",
    ) as caught:
        run.take("hpdv2", source)
    assert str(caught.value).startswith(f"{source / 'test.json'}: ")
    path.unlink()
    path.symlink_to(moved.rename(source / "elsewhere"))
    assert run.take("hpdv2", source).images == 4


def test_what_is_read_of_an_export_is_of_one_export(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    export(campaign.store, campaign.run)
    latest = Latest(campaign.run)
    assert len(latest.images) == 3
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    assert (latest.verdicts, latest.rankings) == ([], [])
    assert len(Latest(campaign.run).verdicts) == 3


def test_a_run_that_imports_its_own_dataset_has_no_new_raters(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "mine")
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    mine = Run(campaign.run.root)
    again = mine.take("dataset", mine.give("dataset", tmp_path / "out"))
    assert (again.images, again.prompts, again.feedback) == (
        0,
        0,
        Added(tasks=0, labels=0, raters=0),
    )
    assert len(mine.table("raters")) == 1


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


def test_an_export_writes_a_new_folder_or_nothing(tmp_path: Path, run: Run) -> None:
    run.take("hpdv2", files.hpdv2_test(tmp_path / "source"))
    with pytest.raises(PictuneError, match="is there already"):
        run.give("hpdv2", tmp_path / "source")
    next(run.run.images_dir.iterdir()).unlink()
    with pytest.raises(PictuneError, match=r"labels refer to it but .* does not have it"):
        run.give("hpdv2", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "run"}


def test_an_export_says_what_the_format_cannot_hold(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    export(campaign.store, campaign.run)
    for name in ("pick-a-pic", "hpdv2"):
        assert (
            export_to(name, Latest(campaign.run), tmp_path / name).left_out[
                "verdicts on single images"
            ]
            == 3
        )


few = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def pick_a_pic_rows(draw: st.DrawFn) -> list[files.Row]:
    """Rows about different pairs, or by different users about the same pair; the images of a prompt are its own."""
    keys = draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9)),
            min_size=1,
            max_size=8,
        )
    )
    known: dict[tuple[int, frozenset[int], int], files.Row] = {}
    for number, (prompt, first, second, user) in enumerate(keys):
        label = draw(st.sampled_from([1.0, 0.5, 0.0]))
        if first != second:
            row = files.pick_a_pic_row(
                10 * prompt + first, 10 * prompt + second, label, user_id=user, ranking_id=number
            )
            known.setdefault(
                (prompt, frozenset({first, second}), user),
                row | {"caption": f"prompt {prompt} ☃", "created_at": draw(MOMENTS)},
            )
    open_pair = files.pick_a_pic_row(
        900, 901, None, caption="nobody", user_id=draw(st.integers(0, 9))
    )
    return [*known.values(), *draw(st.sampled_from([[], [open_pair]]))]


MOMENTS = st.datetimes(
    min_value=pd.Timestamp("2000-01-01").to_pydatetime(),
    max_value=pd.Timestamp("2100-01-01").to_pydatetime(),
)


@few
@given(rows=pick_a_pic_rows())
def test_pick_a_pic_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[files.Row]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    run = Run(folder / "run")
    source = files.write_pick_a_pic(folder / "train.parquet", rows)
    run.take("pick-a-pic", source)
    out = run.give("pick-a-pic", folder / "out")
    assert (
        _pairs_in(out / "train.parquet") == _pairs_in(source) if rows else not list(out.iterdir())
    )


def _pairs_in(path: Path) -> list[Any]:
    table = pq.read_table(path)
    rows = table.select(
        [name for name in table.column_names if name != "__index_level_0__"]
    ).to_pylist()
    return sorted(
        rows,
        key=lambda row: (row["caption"], row["image_0_uid"], row["image_1_uid"], row["user_id"]),
    )


@st.composite
def hpdv2_rows(draw: st.DrawFn) -> list[files.Row]:
    rows = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.integers(2, 5))
        ranks = st.lists(st.integers(0, 5), min_size=size, max_size=size)
        users = draw(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=3))
        annotations = [{"rank": draw(ranks), "user_hash": user} for user in users]
        names = [f"{10 * number + i}.png" for i in range(size)]
        rows.append(
            {
                "prompt": f"prompt {number}",
                "image_path": names,
                "rank": draw(ranks),
                "raw_annotations": annotations,
            }
        )
    return rows


@few
@given(rows=hpdv2_rows())
def test_hpdv2_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[files.Row]
) -> None:
    folder = tmp_path_factory.mktemp("rankings")
    files.write_images(folder / "test", [name for row in rows for name in row["image_path"]])
    run, other = Run(folder / "run"), Run(folder / "other")
    run.take("hpdv2", files.write_json(folder / "test.json", rows))
    out = run.give("hpdv2", folder / "out")
    assert (
        sorted(json.loads((out / "test.json").read_text()), key=lambda row: row["prompt"]) == rows
    )
    for row in rows:
        for name in row["image_path"]:
            assert (out / "test" / name).read_bytes() == (folder / "test" / name).read_bytes()
    other.take("hpdv2", out)
    assert other.contents() == run.contents()


@few
@given(seed=st.integers(0, 2**32), n_images=st.integers(2, 4))
def test_rankings_by_people_survive_pairs_and_dataset_folders(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_images: int
) -> None:
    """Rankings as our own app collects them, with ties and images that cannot be judged, of sets of images that overlap."""
    folder = tmp_path_factory.mktemp("own")
    campaign = Campaign(folder / "run", n_images=n_images)
    campaign.store.add_tasks(
        [
            NewTask(
                kind="ranking", prompt="a cat", image_ids=tuple(campaign.image_ids[:2]), overlap=2
            )
        ]
    )
    rng = random.Random(seed)
    for rater in map(campaign.store.add_rater, ("anna", "ben")):
        while (claim := campaign.store.claim(rater, kind="ranking")) is not None:
            answer = RankingAnswer(
                ranks={image_id: rng.choice([None, 1, 2, 3]) for image_id in claim.task.image_ids}
            )
            campaign.store.submit(submission(claim, rater, f"{rng.getrandbits(64)}", answer))
    export(campaign.store, campaign.run)
    campaign.store.close()
    run, pairs, whole = Run(folder / "run"), Run(folder / "pairs"), Run(folder / "whole")
    as_pairs = run.give("pick-a-pic", folder / "as-pairs")
    if list(as_pairs.iterdir()):
        pairs.take("pick-a-pic", as_pairs)
    whole.take("dataset", run.give("dataset", folder / "as-dataset"))
    assert whole.contents() == run.contents()
    assert (_preferences(pairs) if list(as_pairs.iterdir()) else []) == _preferences(run)


def _preferences(run: Run) -> list[tuple[str, str, float]]:
    """Each pair by the order of its ids, whoever said so."""
    pairs = run.table("labels_pairs")[["image_id_0", "image_id_1", "label_0"]].values.tolist()
    return sorted((a, b, label) if a < b else (b, a, 1 - label) for a, b, label in pairs)


def test_the_dataset_folder_opens_with_the_hub_library(tmp_path: Path, run: Run) -> None:
    datasets = pytest.importorskip("datasets")
    run.take("hpdv2", files.hpdv2_test(tmp_path / "source"))
    out = run.give("dataset", tmp_path / "out")
    cache = str(tmp_path / "cache")
    images = datasets.load_dataset(str(out), "images", split="train", cache_dir=cache)
    assert images[0]["image"].size == (4, 3)
    rankings = datasets.load_dataset(str(out), "labels_ranking", split="train", cache_dir=cache)
    assert rankings.num_rows == 2
    assert "user_hash" not in (out / "README.md").read_text()


def test_an_export_of_a_copy_of_the_run_is_the_same(tmp_path: Path, run: Run) -> None:
    run.take("hpdv2", files.hpdv2_test(tmp_path / "source"))
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.run.root, copy.run.root, symlinks=True)
    first, second = (
        one.give("dataset", tmp_path / name) for one, name in ((run, "a"), (copy, "b"))
    )
    hashes = [
        {path.name: sha256_of(path) for path in (folder / "data").iterdir()}
        for folder in (first, second)
    ]
    assert hashes[0] == hashes[1]

"""Folders of one's own images and labels: each layout lands once, and each fault is named."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from data.errors import PictuneError
from data.formats.landing import Imported
from data.store.imported import Added
from tests.support import exchange_files as files
from tests.support.exchange_run import ExchangeRun

Make = Callable[[Path], None]


def write(texts: Mapping[str, str], *images: str) -> Make:
    """Return a function that writes these texts and images; an image's number is its stem's."""

    def make(folder: Path) -> None:
        for number, name in enumerate(images):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.image(number))
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    return make


def table(*lines: str) -> Make:
    """Return a function that writes four images and a CSV file with these lines."""
    return write({"labels.csv": "\n".join(lines) + "\n"}, *(f"{n}.png" for n in range(4)))


def ranks(*rows: object) -> Make:
    return write({"ranks.json": json.dumps(rows)}, *(f"{n}.png" for n in range(4)))


VERDICTS = write(
    {"prompt.txt": "a cat", "good/b.txt": " a red\n dog"},
    "good/a.png",
    "good/b.png",
    "bad/in/c.png",
)
PAIRS = write({"w/a.txt": "a cat", "b.txt": "a dog"}, "w/a.png", "l/a.png", "w/b.png", "l/b.png")
PAIRS_BY_NAME = write(
    {"a.txt": "a cat", "x/b_w.txt": "a dog", "c.txt": "a cow"},
    *("a-w.png", "a-l.png", "x/b_w.png", "x/b_l.png", "c.png"),
)
Said = list[tuple[str, object]]
"""Prompt and answer of each label, in order."""

CASES: dict[str, tuple[Make, tuple[int, list[int]], Said]] = {
    "good/ and bad/": (
        VERDICTS,
        (3, [3]),
        [
            ("a cat", "bad"),
            ("a cat", "good"),
            ("a red dog", "good"),
        ],
    ),
    "w/ and l/": (
        PAIRS,
        (4, [2]),
        [("a cat", [1, 2]), ("a dog", [1, 2])],
    ),
    "pairs by name": (
        PAIRS_BY_NAME,
        (5, [2]),
        [("a cat", [1, 2]), ("a dog", [1, 2])],
    ),
    "images alone": (write({"a.txt": "a cat"}, "a.png"), (1, []), []),
    "ranks.json": (
        ranks(
            {"prompt": "a cat", "images": ["0.png", "1.png", "2.png"], "ranks": [2, 1, 1]},
            {"prompt": "a cat", "images": ["3.png", "0.png"], "rater": "anna"},
        ),
        (4, [1, 1]),
        [("a cat", [1, 2]), ("a cat", [2, 1, 1])],
    ),
    "labels": (
        table(
            "file,prompt,label,rater",
            *(
                "0.png,a cat,good,anna",
                "0.png,a cat,0,ben",
                "1.png,a cat,Bad,anna",
                "2.png,a cat,,",
            ),
        ),
        (3, [1, 2]),
        [
            ("a cat", "bad"),
            ("a cat", "bad"),
            ("a cat", "good"),
        ],
    ),
    "ranks": (
        table(
            "file,prompt,rank,rater,group",
            *("0.png,a cat,2,anna,", "1.png,a cat,1,anna,", "0.png,a cat,1,ben,"),
            *("1.png,a cat,1,ben,", "2.png,a cat,0,ben,b", "3.png,a cat,7,ben,b"),
        ),
        (4, [1, 2]),
        [
            ("a cat", [1, 1]),
            ("a cat", [1, 2]),
            ("a cat", [2, 1]),
        ],
    ),
    "ratings": (
        table(
            "file_name,prompt,rating,category,split,model_id",
            *("0.png,a cat,3.5,animal,test,sd", "1.png,a cat,8,animal,test,sd"),
            *("2.png,a cat,3.5,animal,test,sd", "3.png,a dog,,,,"),
        ),
        (4, [1]),
        [("a cat", [2, 1, 2])],
    ),
}


def said(exchange: ExchangeRun) -> Said:
    """Return what each label says."""
    prompts = exchange.table("prompts").set_index("prompt_id")["prompt"]
    binary, ranking = exchange.table("labels_binary"), exchange.table("labels_ranking")
    tasks = exchange.table("tasks").set_index("task_id")["prompt_id"]
    rows = [*zip(binary["task_id"], binary["label"], strict=True)]
    rows += zip(ranking["task_id"], ranking["ranks"].map(list), strict=True)
    return sorted(((prompts[tasks[task]], answer) for task, answer in rows), key=repr)


@pytest.mark.parametrize("case", CASES)
def test_a_folder_lands_with_its_labels_and_only_once(
    tmp_path: Path, exchange: ExchangeRun, case: str
) -> None:
    make, (images, labels_by_rater), answers = CASES[case]
    make(tmp_path / "mine")
    new = exchange.take("folder", tmp_path / "mine")
    assert new.images == images
    assert sorted(map(len, exchange.contents()["raters"])) == labels_by_rater
    before = exchange.files(), exchange.contents()
    assert said(exchange) == answers
    assert exchange.take("folder", tmp_path / "mine") == Imported(0, 0, Added(0, 0, 0))
    assert (exchange.files(), exchange.contents()) == before


def test_raters_who_rank_the_same_images_in_another_order_share_a_task(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    lines = ["0.png,anna,1", "1.png,anna,2", "1.png,ben,2", "0.png,ben,1"]
    table("file,rater,rank", *lines)(tmp_path / "mine")
    (tmp_path / "mine" / "prompt.txt").write_text("a cat")
    assert exchange.take("folder", tmp_path / "mine").feedback.tasks == 1
    (first, second) = exchange.table("labels_ranking")["ranks"].map(list)
    assert first == second == [1, 2]


FAULTS: list[tuple[Make, str]] = [
    (
        table("file,prompt,label", "0.png,a cat,good", "1.png,a cat,fine"),
        r"row 2, column label: is 'fine', not one of good, bad",
    ),
    (
        table("file,prompt,rank", "0.png,a cat,1", "1.png,a cat,best"),
        r"row 2, column rank: is 'best', not a number",
    ),
    (
        table("file,prompt,rank", "0.png,a cat,1", "1.png,a dog,1"),
        r"row 1, column \(answer\): ranks the only image .*, one of 2 bad rows",
    ),
    (
        table("file,prompt,rank", "0.png,a cat,1", "1.png,a cat,2", "0.png,a cat,3"),
        r"row 3, column file: has a rank by this rater in an earlier line",
    ),
    (
        table("file,prompt,rank,label", "0.png,a cat,1,good"),
        r"row 1, column rank: is given as well as label",
    ),
    (ranks({"images": ["0.png", "1.png"]}), r"0\.png: has no prompt; write it into 0\.txt"),
    (write({"good/b.txt": ""}, "good/b.png"), r"good/b\.txt: is empty; write"),
    (write({}, "good/b.png"), r"good/b\.png: has no prompt"),
    (
        write({"prompt.txt": "a cat"}, "w/a.png", "l/a.png", "l/b.png"),
        r"l/b\.png: is one of 0 better and 1 worse images of the name b",
    ),
    (
        write({"w/a.txt": "a cat", "l/a.txt": "a dog"}, "w/a.png", "l/a.png"),
        r"w/a\.png: has another prompt than l/a\.png",
    ),
    (
        write({"prompt.txt": "x", "good/b.png": "no image"}),
        r"good/b\.png: cannot be read as an image",
    ),
    (
        write({"labels.csv": "file,prompt\n", "good/a.txt": "x"}, "good/a.png"),
        r"holds labels\.csv, good/ and bad/, each of which",
    ),
    (write({"notes.md": ""}), r"holds no CSV file, no ranks\.json and no images"),
]


@pytest.mark.parametrize(("make", "fault"), FAULTS)
def test_a_fault_of_a_folder_is_named_and_nothing_is_imported(
    tmp_path: Path, exchange: ExchangeRun, make: Make, fault: str
) -> None:
    make(tmp_path / "mine")
    with pytest.raises(PictuneError, match=fault) as caught:
        exchange.take("folder", tmp_path / "mine")
    assert "\n" not in str(caught.value)
    assert not exchange.run.images_table.exists()


def test_a_damaged_image_of_a_ranking_names_its_own_line(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    table("file,prompt,rank", "0.png,a cat,1", "1.png,a cat,2")(tmp_path / "mine")
    (tmp_path / "mine" / "1.png").write_text("no image")
    with pytest.raises(PictuneError, match=r"row 2, column file: cannot be read as an image"):
        exchange.take("folder", tmp_path / "mine")

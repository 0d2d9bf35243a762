"""Files that an import refuses: it names file, row and column, and imports nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import PictuneError
from data.tables.parquet import export
from tests.support import exchange_files as files
from tests.support.data_campaign import open_store
from tests.support.exchange_run import TOO_LARGE_PNG, ExchangeRun


def _csv(line: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = files.folder_with_csv(folder)
        files.write_images(folder, ["53.png"])
        with (path / "prompts.csv").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return path

    return make


def _ranks_json(text: str) -> Callable[[Path], Path]:
    return lambda folder: _text(folder / "ranks.json", text).parent


def _pairs(**changes: Any) -> Callable[[Path], Path]:
    rows = [files.pick_a_pic_row(1, 2, 1.0), files.pick_a_pic_row(3, 4, 1.0) | changes]
    return lambda folder: files.write_pick_a_pic(folder / "train.parquet", rows)


def _ranks(**changes: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = files.folder_with_ranks(folder) / "ranks.json"
        first, second = json.loads(path.read_text())
        return files.write_json(path, [first, second | changes]).parent

    return make


def _fourth(name: str) -> dict[str, Any]:
    return {"images": ["61.png", "62.png", "63.png", name]}


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


Case = tuple[str, Callable[[Path], Path], str]

PAIRS: list[tuple[dict[str, Any], str]] = [
    ({"caption": ""}, r"train\.parquet: row 2, column caption: is '', not a text"),
    ({"label_0": 0.3}, r"row 2, column label_0: is 0\.3, not one of"),
    ({"label_1": 0.5}, r"row 2, column label_1: is 0\.5 where label_0 is 1\.0"),
    ({"best_image_uid": "uid-4"}, r"row 2, column best_image_uid: is the image that"),
    ({"jpg_1": b"no image"}, r"row 2, column jpg_1: cannot be read as an image"),
    ({"jpg_1": files.image(3)[:45]}, r"row 2, column jpg_1: cannot be read as an image"),
    ({"jpg_1": files.image(3, "GIF")}, r"row 2, column jpg_1: is an image, but neither"),
    (
        {"jpg_1": TOO_LARGE_PNG},
        r"jpg_1: has 13000 x 13000 pixels, more than 16,777,216 .*; make it smaller",
    ),
    ({"jpg_1": files.large_png(4096, 4097)}, r"row 2, column jpg_1: has 4096 x 4097 pixels"),
    ({"jpg_0": None}, r"row 2, column jpg_0: has no image bytes"),
    ({"jpg_1": files.image(3)}, r"row 2, column jpg_1: an image stands in the task twice"),
    ({"user_id": None}, r"row 2, column user_id: is empty, not a whole number"),
    (
        {"jpg_0": files.image(1), "caption": "a dog"},
        r"row 2, column jpg_0: the same image stands under another prompt",
    ),
    (
        {"caption": "a\x00cat"},
        r"row 2, column caption: has the control character U\+0000; fix or remove the row",
    ),
    ({"caption": "a \x1b[2Jcat"}, r"row 2, column caption: .* U\+001B"),
]
"""Changes of the second row of a Pick-a-Pic table, and the fault."""

RANKS: list[tuple[dict[str, Any], str]] = [
    ({"ranks": [1, 2]}, r"ranks\.json: row 2, column ranks: has 2 entries where 4 are wanted"),
    ({"ranks": "first"}, r"row 2, column ranks: is 'first', not a list of whole numbers"),
    (_fourth("../run/x.png"), r"column images\[3\]: .* not a path within"),
    (_fourth("/etc/hostname"), r"column images\[3\]: .* not a path within"),
    (_fourth("a" * 300 + ".png"), r"images\[3\]: 'a+\.\.\. cannot be a file"),
    (_fourth("data:image/png;base64," + "A" * 300), r"no image data:image/png;base64,A{178} in /"),
    (_fourth("9.png"), r"column images\[3\]: no image 9\.png in"),
]
"""Changes of the second row of a `ranks.json`, and the fault."""

RANKS_JSON: list[tuple[str, str]] = [
    ("[{", r"ranks\.json:1: not valid JSON"),
    (files.deep_json(100_000), r"ranks\.json: cannot be read as JSON \(it is nested"),
    (f"[{files.long_number(5000)}]", r"ranks\.json: cannot be .* too many digits"),
    ("\ufeff{}", r"ranks\.json: holds no list of rows"),
    ("{}", r"ranks\.json: holds no list of rows"),
]
"""Text of a `ranks.json`, and the fault."""

CSV: list[tuple[str, str]] = [
    ("51.png,a cat,,,,many", r"prompts\.csv: row 3, column seed: is 'many', not a number"),
    ("51.png,,,,,", r"row 3, column prompt: is empty, and there is no caption 51\.txt"),
    ("51.png,a cat,,dev,,", r"row 3, column split: is 'dev', not one of"),
    (f"53.png,a cat,,,,{2**64 - 1}", r"column seed: is 18446744073709551615, which does not fit"),
    (
        "http://[bad/x.png,a cat,,,,",
        r"row 3, column file_name: 'http://\[bad/x\.png' is not an address",
    ),
    ("53.png,a\x7fcat,,,,", r"row 3, column prompt: has the control character U\+007F"),
]
"""The last line of a folder's CSV file, and the fault."""

OTHERS: list[Case] = [
    ("folder", _ranks_json('[{"prompt": "x"}]'), r"row 1, column images: is missing"),
    ("pick-a-pic", lambda folder: folder, r"holds no \.parquet file"),
    (
        "folder",
        lambda folder: _text(folder / "a.csv", "photo,prompt\n"),
        r"a\.csv: row 1, column file: is missing",
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
    ("pick-a-pic", lambda folder: folder / "nowhere.parquet", r"nowhere\.parquet: no such file"),
]

CASES: list[Case] = [
    *(("pick-a-pic", _pairs(**changes), fault) for changes, fault in PAIRS),
    *(("folder", _ranks(**changes), fault) for changes, fault in RANKS),
    *(("folder", _ranks_json(text), fault) for text, fault in RANKS_JSON),
    *(("folder", _csv(line), fault) for line, fault in CSV),
    *OTHERS,
]


@pytest.mark.parametrize(("name", "make", "fault"), CASES)
def test_a_bad_row_is_named_and_nothing_is_imported(
    tmp_path: Path, exchange: ExchangeRun, name: str, make: Callable[[Path], Path], fault: str
) -> None:
    exchange.take_pairs(files.pick_a_pic_row(101, 102, 1.0, caption="first"))
    before = exchange.files(), exchange.contents()
    (tmp_path / "source").mkdir()
    with pytest.raises(PictuneError, match=fault) as caught:
        exchange.take(name, make(tmp_path / "source"))
    assert "\n" not in str(caught.value)
    with open_store(exchange.run.root) as store:
        export(store, exchange.run)
    assert (exchange.files(), exchange.contents()) == before


def test_json_that_can_just_be_read_can_be_named_as_well(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    path = files.folder_with_ranks(tmp_path / "source") / "ranks.json"
    row, _ = json.loads(path.read_text())
    faults = {"nested too deep": 0, "column prompt: is [[[": 0}
    for depth in range(800, 1001, 40):
        text = json.dumps([row | {"prompt": "deep"}])
        path.write_text(text.replace('"deep"', files.deep_json(depth)))
        with pytest.raises(PictuneError) as caught:
            exchange.take("folder", path.parent)
        (fault,) = [fault for fault in faults if fault in str(caught.value)]
        faults[fault] += 1
    assert min(faults.values()) > 0


@pytest.mark.parametrize("linked", ["images/61.png", "images", "ranks.json"])
def test_a_link_out_of_the_source_is_refused_and_one_within_it_is_followed(
    tmp_path: Path, exchange: ExchangeRun, linked: str
) -> None:
    source = files.folder_with_ranks(tmp_path / "source")
    path = source / linked
    moved = path.rename(tmp_path / "private")
    path.symlink_to(moved)
    fault = rf"is a link out of {source}, to {tmp_path}/private.*; put the file itself there"
    with pytest.raises(PictuneError, match=fault):
        exchange.take("folder", source)
    path.unlink()
    path.symlink_to(moved.rename(source / "elsewhere"))
    assert exchange.take("folder", source).images == 4

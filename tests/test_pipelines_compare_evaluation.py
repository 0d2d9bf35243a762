"""People's verdict on the evaluation's page, on tiny models."""

import json
import random
import re
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.feedback import NewTask
from data.image_files import read_image
from data.kinds.comparison import ComparisonAnswer
from data.runs import RunFolder
from data.schema import IMAGES, prompt_id, read_table, write_table
from data.store.imported import ImportedLabel
from data.tables.parquet import export
from pipelines.collect.label_statistics import label_statistics
from pipelines.run.record import STAMP
from tests.support.data_campaign import START, open_store
from tests.support.demo_run import command, page_of
from tests.support.tuned_run import copy_of

pytestmark = pytest.mark.slow


def compare_by_brightness(run: RunFolder) -> None:
    """Let people prefer the brighter of two images of a prompt, by the base and by `rwl`."""
    rows = read_table(run.images_table, IMAGES).to_pylist()
    rng = random.Random(0)
    labels: list[ImportedLabel] = []
    for prompt in sorted({row["prompt"] for row in rows}):
        own = [row for row in rows if row["prompt"] == prompt]
        for number, (first, second) in enumerate(zip(own[::2], own[1::2], strict=False)):
            pair = (first["image_id"], second["image_id"])
            task = NewTask(
                kind="comparison",
                prompt=prompt,
                image_ids=pair,
                overlap=3,
                axis="overall",
                models=("base", "rwl"),
            )
            brighter = max((first, second), key=lambda row: brightness(run, row))["image_id"]
            labels += [
                ImportedLabel(
                    submission_id=f"{prompt}{number}{rater}",
                    rater=rater,
                    source="human",
                    task=task,
                    answer=ComparisonAnswer(outcome="preferred", preferred=brighter),
                    shown_order=tuple(rng.sample((0, 1), 2)),
                    submitted_at=START + timedelta(seconds=len(labels)),
                )
                for rater in ("anna", "ben", "cleo")
            ]
    with open_store(run.root) as store:
        store.import_labels([one.task for one in labels], labels, finish=lambda: None)
        export(store, run)


def brightness(run: RunFolder, row: dict[str, Any]) -> float:
    return float(np.array(read_image(run.root / row["path"], "").convert("RGB")).mean())


@pytest.fixture(scope="module")
def run(ready: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is tuned and evaluated."""
    copy = copy_of(ready, tmp_path_factory.mktemp("runs"))
    assert command(copy, "finetune", "--method", "dpok", "--set", "dpok.learning_rate=1e-30") == 0
    assert command(copy, "evaluate") == 0
    return copy


def test_without_a_comparison_the_page_names_the_commands(run: RunFolder) -> None:
    if not (run.comparison_dir / "metrics.json").exists():
        assert command(run, "report") == 0
        page = page_of(run.evaluation_dir)
        assert "No comparison by people yet" in page
        assert "make compare-report RUN=ready" in page
        assert "What people say" not in page


def test_the_page_leads_with_peoples_verdict_and_evaluate_stays_done(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_by_brightness(run)
    stamp = (run.evaluation_dir / STAMP).read_bytes()
    assert command(run, "compare-report") == 0
    page = page_of(run.evaluation_dir)
    assert page.index("What people say") < page.index('class="cards"')
    assert "Overall preference" in page
    assert "No comparison by people yet" not in page
    assert "tuned again since" not in page
    assert (run.evaluation_dir / STAMP).read_bytes() == stamp
    capsys.readouterr()
    assert command(run, "evaluate") == 0
    assert "evaluate: done" in capsys.readouterr().out
    assert "What people say" in page_of(run.evaluation_dir)


def test_the_story_counts_what_the_reward_learned_from(run: RunFolder) -> None:
    """Neither images that were drawn for comparisons, nor those who only compared models."""
    table = read_table(run.images_table, IMAGES)
    story = f"{table.num_rows} images by the base model"
    assert story in page_of(run.evaluation_dir)
    more = table.slice(0, 1).to_pylist()[0] | {"image_id": "f" * 64, "origin": "comparison"}
    rows = [*table.to_pylist(), more | {"prompt": "A cat.", "prompt_id": prompt_id("A cat.")}]
    write_table(pa.Table.from_pylist(rows, schema=IMAGES), IMAGES, run.images_table)
    assert command(run, "report") == 0
    write_table(table, IMAGES, run.images_table)
    assert story in page_of(run.evaluation_dir)
    assert label_statistics(run.latest)["raters"].keys() == {"simulated"}
    assert re.search(r"rankings</b>by \d+ simulated raters</li>", page_of(run.evaluation_dir))


def test_votes_on_a_model_that_was_tuned_again_are_called_so(run: RunFolder) -> None:
    path = run.comparison_dir / "metrics.json"
    figures = json.loads(path.read_text())
    figures["models"]["dpok"] = ["of another training"]
    path.write_text(json.dumps(figures))
    assert command(run, "report") == 0
    assert "dpok was tuned again since" in page_of(run.evaluation_dir)

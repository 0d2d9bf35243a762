"""The first look at the labels: text for a terminal, and a page that needs nothing but itself."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from data.feedback import NewTask
from data.runs import RunFolder
from data.tables.parquet import export
from pipelines.cli import main
from pipelines.collect.inspection import DISPUTED, inspection_figures
from pipelines.collect.label_statistics import label_statistics
from tests.support.comparison_run import write_comparison_run
from tests.support.data_campaign import Campaign, answer_all
from tests.support.labeled_run import PROMPTS_BY_CATEGORY, write_labeled_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_labeled_run(tmp_path_factory.mktemp("runs") / "r")


def test_inspect_prints_tables_and_writes_a_page_that_holds_all_it_shows(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--runs", str(run.root.parent), "--run", "r"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "80 verdicts, 20 rankings and 40 comparisons by 4 raters: 105 human, 35 simulated",
        "3 sessions (2 human, 1 simulated), 6 turns answered",
        "share good",
        "agreement (human)",
    ):
        assert text in printed
    page = (run.labels_dir / "inspection.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith("data:") for source in sources)
    assert sum("svg" in source[:20] for source in sources) == 1
    assert "Disputed images" in page
    disputed = inspection_figures(run)["disputed"]
    marked = inspection_figures(run)["marked"]
    assert sum("image/png" in source[:20] for source in sources) == len(disputed) + len(marked)
    assert not re.search("<(script|link|iframe)", page)
    assert not re.search(r"url\(|@import", page)
    assert "seen from &lt;b&gt;far&lt;/b&gt; away &amp; above" in page
    assert "anna" not in page


def test_agreement_says_among_whom_and_the_rest_what_it_mixes(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", "--runs", str(tmp_path), "--run", "r"]
    shutil.copytree(run.root, tmp_path / "r", symlinks=True)
    assert main(command) == 0
    mixed = (
        "verdicts and disputed images count all of these together; agreement is among people alone"
    )
    assert mixed in capsys.readouterr().out
    campaign = Campaign(tmp_path / "s")
    person = campaign.store.add_rater("ann")
    programs = [campaign.store.add_rater(name, source="simulated") for name in "12"]
    for rater in programs:
        answer_all(campaign.store, rater)
    command[-1] = "s"
    export(campaign.store, campaign.run)
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "agreement: everybody gave the same answer to everything" in printed
    assert "together" not in printed
    campaign.store.add_tasks(
        [NewTask(kind="binary", prompt="a cat", image_ids=(campaign.image_ids[0],), overlap=3)]
    )
    answer_all(campaign.store, person)
    export(campaign.store, campaign.run)
    assert main(command) == 0
    assert "agreement: no task was answered by two people" in capsys.readouterr().out
    assert (
        "answered by two people, so agreement"
        in (campaign.run.labels_dir / "inspection.html").read_text()
    )


def test_figures_are_those_of_the_tables(run: RunFolder) -> None:
    seen = inspection_figures(run)
    assert (
        sum(row["n"] for row in seen["labels"]["categories"]) == seen["labels"]["total"]["n"] == 80
    )
    assert {row["name"] for row in seen["labels"]["categories"]} == {*PROMPTS_BY_CATEGORY, "other"}
    assert [rater["n"] for rater in seen["raters"]] == [35, 35, 35, 35]
    kinds = {"binary": 20, "ranking": 5, "comparison": 10}
    assert seen["tasks"] == kinds | {"gold": 5, "repeats": 0}
    assert seen["labels"]["raters"] == {"human": 3, "simulated": 1}
    disputed = seen["disputed"]
    assert 0 < len(disputed) <= DISPUTED
    assert all(row["good"] and row["bad"] for row in disputed)
    margins = [abs(row["good"] - row["bad"]) / (row["good"] + row["bad"]) for row in disputed]
    assert margins == sorted(margins)


def test_inspect_reads_a_copy_without_the_store_and_without_images(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(run.latest, copy.latest)
    shutil.copy(run.images_table, copy.images_table)
    assert main(["inspect", "--runs", str(tmp_path), "--run", "copy"]) == 0
    assert "agreement (human)" in capsys.readouterr().out
    assert not copy.store_file.exists()


def test_comparisons_are_counted_and_lead_to_their_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_comparison_run(
        tmp_path / "mine", strengths={"base": 0.0}, axes=(), raters=1, by_chance=0, overlap=1
    )
    assert main(["inspect", "--runs", str(tmp_path), "--run", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "0 binary, 0 ranking and 6 comparison tasks" in printed
    assert "0 verdicts, 0 rankings and 6 comparisons by 1 rater: 6 human" in printed
    assert "make compare-report RUN=mine" in printed
    assert label_statistics(run.latest)["raters"] == {}  # nobody gave a verdict or a ranking
    page = (run.labels_dir / "inspection.html").read_text()
    assert "0 verdicts, 0 rankings and 6 comparisons by 1 rater on" in page
    assert "There are no labels yet" not in page


def test_a_run_without_labels_has_a_first_look_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = Campaign(tmp_path / "r")
    command = ["inspect", "--runs", str(tmp_path), "--run", "r"]
    assert main(command) == 2
    assert "run the stage that writes it first" in capsys.readouterr().err
    export(campaign.store, campaign.run)
    assert main(command) == 0
    assert "none yet" in capsys.readouterr().out
    assert "There are no labels yet" in (campaign.run.labels_dir / "inspection.html").read_text()


def test_marks_of_all_raters_lie_over_their_image_with_the_raters_agreement(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--runs", str(run.root.parent), "--run", "r"]) == 0
    assert "marks (human)" in capsys.readouterr().out
    page = (run.labels_dir / "inspection.html").read_text(encoding="utf-8")
    rows = pd.read_parquet(run.latest / "labels_regions.parquet")
    marks = rows[rows["kind"] != "none"]
    drawn = page[page.index("Where images are wrong") :]
    assert drawn.count("<rect") == (marks["kind"] == "box").sum() > 0
    assert drawn.count("<circle") == (marks["kind"] == "point").sum() > 0
    point = marks[marks["kind"] == "point"].iloc[0]
    circle = f'cx="{16 * point["x0"]}" cy="{16 * point["y0"]}" r="0.8"'  # images of 16 pixels
    assert circle in drawn
    every = inspection_figures(run)["regions"]["aspects"][0]
    assert 0 < every["kappa"] < every["presence_f1"] < 1
    assert f"<td>{every['n_pairs']}</td><td>{every['presence_f1']:.2f}</td>" in drawn
    seen = [(one["marked"], one["raters"]) for one in inspection_figures(run)["marked"]]
    assert seen == sorted(seen, reverse=True)
    assert 'class="misaligned"' in drawn

"""The stage `compare-report` on a run with real labels of known truth."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from data.errors import PictuneError
from data.feedback import NewTask
from data.runs import RunFolder
from data.tables.parquet import export
from labeling_app.admin.tables import comparison_table
from pipelines.collect.exporter import Exporter
from pipelines.compare.arena.figures import AXIS_TITLES
from pipelines.evaluate.page import peoples_verdict
from pipelines.settings.config import check
from tests.support.comparison_run import write_comparison_run
from tests.support.data_campaign import open_store
from tests.support.demo_run import command, metrics_of, page_of
from tests.support.tuned_run import copy_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that people compared, with its report."""
    made = write_comparison_run(tmp_path_factory.mktemp("runs") / "mine")
    assert command(made, "compare-report") == 0
    return made


def test_the_strongest_model_is_found_on_every_axis(run: RunFolder) -> None:
    axes = metrics_of(run.comparison_dir)["axes"]
    assert [axis["axis"] for axis in axes] == ["overall", "appeal"]
    for axis in axes:
        assert axis["strengths"][0]["model"] == "rwl"
        mean = sum(row["elo"] for row in axis["strengths"]) / 3
        assert mean == pytest.approx(1000)
        for row in axis["strengths"]:
            low, high = row["interval"]
            lowest, highest = row["interval_99"]
            assert lowest < low < row["elo"] < high < highest


def test_admins_see_how_each_pair_stands_while_people_still_compare(run: RunFolder) -> None:
    settings = check({}, ("store", "arena"), "test")
    with closing(Exporter(run, settings)) as exporter:
        rows = exporter.quality({})["comparisons"]
        assert exporter.quality({})["comparisons"] == rows
    axes = metrics_of(run.comparison_dir)["axes"]
    pairs = [(axis, pair) for axis in axes for pair in axis["pairs"]]
    assert len(rows) == len(pairs) == 6
    for row, (axis, pair) in zip(rows, pairs, strict=True):
        assert row["question"] == AXIS_TITLES[axis["axis"]]
        assert row["models"] == f"{pair['first']} : {pair['second']}"
        assert (row["votes"], row["won"]) == (pair["n"], pair["won"]["share"])
    shown = comparison_table({"comparisons": rows})["metadata"]["display_value"]
    assert str(shown[0][-1]).startswith("not yet: about ")
    assert re.fullmatch(r"\d+\N{NO-BREAK SPACE}?\s?% \(.* to .*\)", shown[0][3])


def test_every_vote_is_counted_once(run: RunFolder) -> None:
    for axis in metrics_of(run.comparison_dir)["axes"]:
        answers = sum(pair["wins"] + pair["ties"] + pair["losses"] for pair in axis["pairs"])
        assert answers == axis["n"] == sum(part["n"] for part in axis["categories"])
        assert axis["n"] + axis["skipped"] == 18 * 3 * 3
        assert axis["ties"] == sum(pair["ties"] for pair in axis["pairs"])
        assert axis["both_bad"] <= axis["ties"]
        assert {part["category"] for part in axis["categories"]} == {"count", "color", "place"}


def test_counts_have_their_own_table(run: RunFolder) -> None:
    figures = metrics_of(run.comparison_dir)
    assert {row["model"] for row in figures["counts"]} == {"base", "rwl", "dpok"}
    right = {row["model"]: row["right"]["share"] for row in figures["counts"]}
    assert right["rwl"] > right["base"]


def test_the_page_holds_all_that_it_shows(run: RunFolder) -> None:
    whole = (run.comparison_dir / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', whole)
    page = page_of(run.comparison_dir)
    for words in ("Overall preference", "Visual appeal", "raters disagree on"):
        assert words in page, words
    assert "odd ears <i>" not in page  # a comment is text
    assert "There is none yet: train a reward" in page
    assert "simulated" not in page
    assert "One tie is added for each pair of models" in page


def test_the_command_prints_the_verdicts(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run, "compare-report") == 0
    printed = capsys.readouterr().out
    won = r"Overall preference: rwl is preferred to (base|dpok) in \d+% of \d+ votes by \d raters"
    assert re.search(won, printed)
    assert re.search(r"rwl : (base|dpok): (enough|not yet: about \d+ votes)", printed)
    assert str(run.comparison_dir / "report.html") in printed


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen(run: RunFolder, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((run.comparison_dir / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator("img[src^='data:image/svg']")
    scales = charts.evaluate_all("all => all.map(one => one.clientWidth / one.naturalWidth)")
    assert scales
    assert min(scales) >= 0.75
    found = Axe().run(page, options={"runOnly": ["empty-table-header"]})
    assert found.response["violations"] == []
    page.close()


def test_raters_who_answer_by_chance_are_left_out_where_the_lead_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strengths = {"base": -2.5, "rwl": 2.5}
    run = write_comparison_run(
        tmp_path / "mine", strengths=strengths, raters=6, axes=("overall", "appeal", "alignment")
    )
    assert command(run, "compare-report") == 0
    kept = metrics_of(run.comparison_dir)
    named = [one["rater_id"] for one in kept["raters"] if one["by_chance"]]
    assert len(named) == 1
    assert "arena.omit_raters=true leaves such raters out" in capsys.readouterr().out
    assert command(run, "compare-report", "--set", "arena.omit_raters=true") == 0
    without = metrics_of(run.comparison_dir)
    assert without["omitted"] == named
    assert without["axes"][0]["n"] < kept["axes"][0]["n"]
    assert without["axes"][0]["raters"] == 5
    assert "left out" in page_of(run.comparison_dir)


def test_a_rater_who_answers_in_tenths_of_a_second_is_named_and_left_out_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_comparison_run(tmp_path / "mine", by_chance=0, hasty=1, counts=False)
    assert command(run, "compare-report") == 0
    (named,) = (one for one in metrics_of(run.comparison_dir)["raters"] if one["flags"])
    assert named["flags"] == ["quick"]
    assert not named["by_chance"]
    said = f"Rater {named['rater_id'][:8]}: answers in tenths of a second (counted;"
    assert said in capsys.readouterr().out
    assert "<td>answers in tenths of a second</td>" in page_of(run.comparison_dir)
    assert command(run, "compare-report", "--set", "arena.omit_raters=true") == 0
    assert metrics_of(run.comparison_dir)["omitted"] == [named["rater_id"]]
    assert "answers in tenths of a second, left out" in page_of(run.comparison_dir)


def test_votes_of_one_rater_by_chance_are_called_no_difference_found_yet(
    tmp_path: Path,
) -> None:
    alike = {"base": 0.0, "rwl": 0.0}
    run = write_comparison_run(
        tmp_path / "mine", strengths=alike, axes=("overall",), raters=1, overlap=1, counts=False
    )
    assert command(run, "compare-report") == 0
    ((_, said),) = metrics_of(run.comparison_dir)["verdicts"]
    no_difference = r"no difference found yet: \w+ won \d+% of \d+ votes by one rater against"
    assert re.match(no_difference, said)
    assert "One rater alone: the intervals are over prompts" in said
    assert "by 1 person" in page_of(run.comparison_dir)
    people = peoples_verdict(run)
    assert people is not None
    assert (people["by"], people["verdicts"][0][1]) == ("1 person", said)


def test_simulated_raters_are_named_as_such_and_never_mixed_with_people(
    tmp_path: Path, run: RunFolder
) -> None:
    simulated = write_comparison_run(tmp_path / "mine", source="simulated")
    assert command(simulated, "compare-report") == 0
    assert metrics_of(simulated.comparison_dir)["source"] == "simulated"
    assert "No person has judged yet" in page_of(simulated.comparison_dir)
    assert metrics_of(run.comparison_dir)["source"] == "human"


@pytest.mark.parametrize(
    ("campaign", "said"),
    [
        ({"counts": False, "strengths": {"base": 0.0}}, "no comparisons yet; plan some"),
        ({"strengths": {"base": 0.0}}, "only base was shown to raters; plan a comparison of two"),
        ({"axes": ("overall",), "skips": True}, "comparisons were skipped or reported"),
    ],
)
def test_a_run_that_says_nothing_of_models_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], campaign: dict[str, Any], said: str
) -> None:
    run = write_comparison_run(tmp_path / "mine", **campaign)
    assert command(run, "compare-report") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert said in error


def test_an_axis_without_labels_is_named(
    tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = copy_of(run, tmp_path)
    with open_store(planned.root) as store:
        ids = metrics_of(run.comparison_dir)["disputes"][0]["images"]
        store.add_tasks(
            [
                NewTask(
                    kind="comparison",
                    prompt="A wolf at sea.",
                    image_ids=tuple(ids),
                    axis="alignment",
                    models=("base", "rwl"),
                )
            ]
        )
        export(store, planned)
    assert command(planned, "compare-report") == 0
    assert "Prompt-image alignment: nobody has answered yet" in capsys.readouterr().out
    assert "nobody has answered yet." in page_of(planned.comparison_dir)


@pytest.mark.parametrize("content", ["{", "[]", '{"source": "human"}'])
def test_figures_that_cannot_be_read_are_refused_in_a_line(
    run: RunFolder, tmp_path: Path, content: str
) -> None:
    broken = copy_of(run, tmp_path)
    (broken.comparison_dir / "metrics.json").write_text(content)
    with pytest.raises(PictuneError, match="make compare-report RUN=mine"):
        peoples_verdict(broken)

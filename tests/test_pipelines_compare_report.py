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
from data.schema import IMAGES, read_table
from data.tables.parquet import export
from labeling_app.admin.tables import comparison_table
from pipelines.collect.exporter import Exporter
from pipelines.compare.arena.figures import AXIS_TITLES
from pipelines.evaluate.page import peoples_verdict
from tests.support.comparison_run import write_comparison_run
from tests.support.data_campaign import open_store
from tests.support.demo_run import command, metrics_of, page_of
from tests.support.tuned_run import copy_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that people compared, with its report."""
    made = write_comparison_run(tmp_path_factory.mktemp("runs") / "mine", seed=2)
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
            assert low < row["elo"] < high


def test_admins_see_how_each_pair_stands_while_people_still_compare(run: RunFolder) -> None:
    with closing(Exporter(run)) as exporter:
        quality = exporter.quality({})
        assert exporter.quality({})["comparisons"] == quality["comparisons"]
    shown = comparison_table(quality)
    axes = metrics_of(run.comparison_dir)["axes"]
    pairs = [(axis, pair) for axis in axes for pair in axis["pairs"]]
    assert len(pairs) == 6
    assert [row[:4] for row in shown["data"]] == [
        [
            AXIS_TITLES[axis["axis"]],
            f"{pair['first']} : {pair['second']}",
            pair["n"],
            pair["won"]["share"],
        ]
        for axis, pair in pairs
    ]
    *_, won, standing = shown["metadata"]["display_value"][0]
    assert re.fullmatch(r"\d+\N{NO-BREAK SPACE}?\s?% \(.* to .*\)", won)
    assert standing == "enough" or standing.startswith("not yet: about ")


def test_every_vote_is_counted_once(run: RunFolder) -> None:
    for axis in metrics_of(run.comparison_dir)["axes"]:
        answers = sum(pair["wins"] + pair["ties"] + pair["losses"] for pair in axis["pairs"])
        assert answers == axis["n"] == sum(part["n"] for part in axis["categories"])
        assert axis["n"] + axis["skipped"] == 18 * 3 * 3
        assert axis["ties"] == sum(pair["ties"] for pair in axis["pairs"])
        assert axis["both_bad"] <= axis["ties"]
        assert {part["category"] for part in axis["categories"]} == {"count", "color", "place"}


def test_the_page_holds_all_that_it_shows(run: RunFolder) -> None:
    whole = (run.comparison_dir / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', whole)
    page = page_of(run.comparison_dir)
    for words in ("Overall preference", "Visual appeal"):
        assert words in page, words
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


def test_votes_of_one_rater_by_chance_are_called_no_difference_found_yet(
    tmp_path: Path,
) -> None:
    alike = {"base": 0.0, "rwl": 0.0}
    run = write_comparison_run(
        tmp_path / "mine", strengths=alike, axes=("overall",), raters=1, overlap=1
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
        ({"strengths": {"base": 0.0}}, "no comparisons yet; plan some"),
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
        ids = read_table(planned.images_table, IMAGES)["image_id"].to_pylist()[:2]
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

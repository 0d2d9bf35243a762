"""The evaluation's page, table and `metrics.json`, with and without a judge."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib.figure import Figure
from playwright.sync_api import Browser

from data.runs import RunFolder
from pipelines.pages import charts
from pipelines.pages.charts import training_chart
from pipelines.pages.page import duration, interval, number, percent, percent_interval, signed
from pipelines.run.judge import EMBEDDED_JUDGE, EMBEDDED_MODEL, judge_folder
from pipelines.run.metrics_log import UNTRAINED, kept_step, read_metrics
from pipelines.run.record import STAMP, read_stamp
from pipelines.settings.config import read_toml
from pipelines.settings.run import RunConfig
from tests.support.demo_run import command, metrics_of, page_of
from tests.support.tiny_diffusion import write_tiny_diffusion
from tests.support.tuned_run import copy_of

pytestmark = pytest.mark.slow

VERDICTS = {"met", "alignment", "readable", "gain"}
"""Names of figures that a judge's word stands behind."""


@pytest.fixture(scope="module")
def run(ready: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose training moved nothing, evaluated with the judge that its settings name."""
    copy = copy_of(ready, tmp_path_factory.mktemp("runs"))
    assert command(copy, "finetune", "--method", "dpok", "--set", "dpok.learning_rate=1e-30") == 0
    assert command(copy, "evaluate") == 0
    return copy


@pytest.fixture(scope="module")
def unjudged(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run of a foreign model, whose settings name no judge, not evaluated yet."""
    copy = copy_of(run, tmp_path_factory.mktemp("runs"))
    shutil.rmtree(copy.evaluation_dir)
    settings = copy.config_file.read_text()
    copy.config_file.write_text(re.sub("(?m)^judge = .*\n", "", settings))
    assert copy.config_file.read_text() != settings
    return copy


def names_in(figures: Any) -> set[str]:
    """Names of all values, however deep they stand."""
    if isinstance(figures, list):
        return {name for one in figures for name in names_in(one)}
    nested = figures.items() if isinstance(figures, dict) else ()
    return {name for key, value in nested for name in {key, *names_in(value)}}


def pages_of(run: RunFolder) -> list[Path]:
    """The pages of evaluation, reward and labels."""
    assert command(run, "inspect") == 0
    folders = {
        run.evaluation_dir: "report.html",
        run.reward_dir: "report.html",
        run.labels_dir: "inspection.html",
    }
    return [folder / name for folder, name in folders.items()]


def test_a_foreign_model_without_a_judge_has_no_verdicts_anywhere(
    unjudged: RunFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(unjudged, "evaluate") == 0
    printed = capsys.readouterr().out
    metrics, page = metrics_of(unjudged.evaluation_dir), page_of(unjudged.evaluation_dir)
    assert metrics["judged"] is False
    assert "audit" not in metrics
    assert not VERDICTS & names_in(metrics["results"])
    for words in (
        "independent judge",
        "the judge",
        "another judge",
        "eadable",
        "✓",
        "of images right",
        " right</",
    ):
        assert words not in page, words
    assert "judge" not in printed
    assert "%" not in printed.replace("95 %", "")
    assert "mean reward, with 95 % intervals (deterministic sampler, eta 0)" in printed
    assert "No judge knows images of this kind" in page
    shown = ("mean reward", "doubt", "CLIP score", "diversity", "KL, nats", "Best of n")
    for words in shown:
        assert words in page, words
    trained = metrics["results"][0]["groups"]["trained"]
    assert trained["reward_interval"][0] < trained["reward"] < trained["reward_interval"][1]
    assert trained["reward_std"] > 0
    assert -1 <= trained["clip_score"] <= 1
    assert 1 <= trained["diversity"] <= 2  # two images a prompt


def test_a_judge_that_is_named_later_judges_the_images_that_are_there(
    run: RunFolder,
    unjudged: RunFolder,
    tmp_path: Path,
) -> None:
    copy = copy_of(unjudged, tmp_path)
    assert command(copy, "evaluate") == 0
    drawn = {path: path.stat().st_mtime_ns for path in copy.evaluation_dir.glob("images/*/*.png")}
    assert command(copy, "evaluate", "--set", f"run.judge={judge_in(run)}") == 0
    metrics = metrics_of(copy.evaluation_dir)
    assert metrics["judged"] is True
    assert names_in(metrics["results"]) >= VERDICTS
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    before = metrics_of(run.evaluation_dir)["results"]
    assert [[row["reward"] for row in one["prompts"]] for one in metrics["results"]] == [
        pytest.approx([row["reward"] for row in one["prompts"]]) for one in before
    ]


def judge_in(run: RunFolder) -> str:
    return str(read_toml(run.config_file)["run"]["judge"])


def test_nothing_stands_for_raters_where_no_judge_knows_the_images(
    unjudged: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(unjudged, tmp_path)
    shutil.rmtree(copy.labels_dir)
    assert command(copy, "simulate") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run.judge: no judge knows the images of" in line
    assert "make label" in line


def test_the_embedded_model_has_its_judge_wherever_it_lies(tmp_path: Path) -> None:
    assert judge_folder(RunConfig()) == EMBEDDED_JUDGE
    assert judge_folder(RunConfig(model=str(EMBEDDED_MODEL.resolve()))) == EMBEDDED_JUDGE
    (tmp_path / "link").symlink_to(EMBEDDED_MODEL)
    assert judge_folder(RunConfig(model=str(tmp_path / "link"))) == EMBEDDED_JUDGE
    assert (
        judge_folder(RunConfig(model=str(shutil.copytree(EMBEDDED_MODEL, tmp_path / "copy"))))
        == EMBEDDED_JUDGE
    )
    foreign = str(write_tiny_diffusion(tmp_path / "foreign"))
    assert judge_folder(RunConfig(model=foreign)) is None
    assert judge_folder(RunConfig(model="some/hub-model")) is None
    assert judge_folder(RunConfig(model=foreign, judge=EMBEDDED_JUDGE)) == EMBEDDED_JUDGE


def test_weights_from_before_training_are_called_so_everywhere(
    run: RunFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = read_metrics(run.finetune_dir("dpok"))
    assert kept_step(lines) == 0
    assert lines[0].keys() == {"step", "validation_reward"}
    assert lines[0]["validation_reward"] == lines[1]["validation_reward"]
    assert metrics_of(run.evaluation_dir)["kept_steps"] == {"dpok": 0}
    assert UNTRAINED in " ".join((run.finetune_dir("dpok") / "README.md").read_text().split())
    assert f"DPOK: {UNTRAINED}" in page_of(run.evaluation_dir)
    assert command(run, "evaluate") == 0
    assert f"DPOK: {UNTRAINED}" in capsys.readouterr().out


def test_training_says_that_it_kept_the_weights_from_before_it(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(ready, tmp_path)
    assert command(copy, "finetune", "--method", "rwl", "--set", "rwl.learning_rate=1e-30") == 0
    assert f"finetune rwl: {UNTRAINED}" in capsys.readouterr().out


def test_shares_of_few_images_are_counts_and_a_single_image_has_no_diversity(
    run: RunFolder,
) -> None:
    page = page_of(run.evaluation_dir)
    heads = re.findall(r"<span>([^<]*) right</span>", page)
    assert heads
    assert all(re.fullmatch(r"[0-2] of [12]", head) for head in heads)
    trained, held_out = re.findall(
        r"<th>(?:training|held-out) prompts</th>.*?</thead>", page, flags=re.DOTALL
    )
    assert "<th>diversity</th>" in trained
    assert "<th>diversity</th>" not in held_out
    assert "Alignment by prompt" not in page  # a chart of two images a prompt says nothing


def test_the_page_tells_the_time_that_the_evaluation_took(run: RunFolder) -> None:
    stamp = read_stamp(run.evaluation_dir / STAMP)
    assert stamp is not None
    assert f"evaluate {duration(stamp.seconds)}" in page_of(run.evaluation_dir)
    assert stamp.seconds > 0
    assert duration(0.04) == "less than 1 s"


def test_intervals_have_no_dash_between_signs_and_no_negative_zero() -> None:
    assert interval((-0.42, -0.001)) == "-0.42 to 0.00"
    assert interval((-0.421, -0.0001), 1, sign=True) == "-0.4 to +0.0"
    assert percent_interval((-0.001, 0.5)) == "0% to 50%"
    assert (interval(None), percent_interval(None)) == ("", "")
    assert (number(-0.0001), signed(-0.0001), percent(-0.0001)) == ("0.00", "+0.00", "0%")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures of the charts that a test draws."""
    figures: list[Figure] = []

    def keep(figure: Figure) -> str:
        figures.append(figure)
        return ""

    monkeypatch.setattr(charts, "_svg", keep)
    return figures


def test_curves_start_at_step_0_and_mark_the_kept_weights(drawn: list[Figure]) -> None:
    lines = [{"step": step, "reward": 1.0} for step in range(3)]
    training_chart(lines, {"reward": "validation"}, color="#000000", ylabel="reward", kept=0)
    curve, kept = drawn[0].axes[0].get_lines()
    assert np.array_equal(curve.get_xdata(), [0, 1, 2])
    assert np.array_equal(kept.get_xdata(), [0, 0])
    assert kept.get_label() == "kept"


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_screen_and_charts_stay_readable(
    run: RunFolder, browser: Browser, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in pages_of(run):
        asked.clear()
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert page.locator("script, link, iframe, a[href]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        shown = page.locator("img[src^='data:image/svg']")
        shrunk = shown.evaluate_all(
            "charts => charts.map(one => [one.alt, one.clientWidth / one.naturalWidth])"
        )
        assert shrunk or path.name == "inspection.html", path  # which has tables alone
        # letters of 8 points become 8 pixels at the smallest
        assert [name for name, scale in shrunk if scale < 0.75] == [], path
        found = Axe().run(
            page, options={"runOnly": ["scrollable-region-focusable", "empty-table-header"]}
        )
        assert found.response["violations"] == [], path
        compared = page.locator(".scroll:has(th:text-is('base'))").first
        if compared.count():  # the models' columns, the tuned one's last
            assert compared.evaluate("area => area.scrollWidth <= area.clientWidth")
    page.close()

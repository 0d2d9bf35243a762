"""Scorers that only measure: their columns in the evaluation, and the warning about others."""

import json
from typing import Any

import numpy as np
import pytest

from data.image_files import read_image
from data.runs import RunFolder
from pipelines.cli import main
from tests.support.demo_run import command, sets
from tests.support.reward_server import reward_server
from tests.support.tuned_run import change_adapter, copy_of, words

BRIGHTNESS = "tests.support.user_rewards:brightness"
REDNESS = "tests.support.small_training:redness"


def test_scorers_have_columns_with_intervals_and_one_that_was_tuned_on_is_named(
    ready: RunFolder, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path_factory.mktemp("scorers"))
    rewards = f'finetune.rewards=[{{kind="python", path="{REDNESS}"}}]'
    assert main(words(run, "ddpo", (rewards, "ddpo.iterations=1"))) == 0
    change_adapter(run, "ddpo")
    with reward_server() as server:
        names = [f"python {BRIGHTNESS}", f"http {server.url}", f"python {REDNESS}"]
        scorers = ", ".join('{{kind="{}", path="{}"}}'.format(*name.split()) for name in names)
        capsys.readouterr()
        assert command(run, "evaluate", *sets(f"evaluate.scorers=[{scorers}]")) == 0
        assert server.asked
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == (
        f"evaluate: python {REDNESS}: the models were tuned on it, so its scores prove nothing; "
        "name another scorer"
    )
    figures = json.loads((run.evaluation_dir / "metrics.json").read_text())
    assert (figures["scorers"], figures["tuned_on"]) == (names, names[2:])
    for result in figures["results"]:
        own, served, _ = result["groups"]["trained"]["scores"]
        assert own["mean"] == pytest.approx(served["mean"], abs=1e-6)
        assert own["mean"] == pytest.approx(brightness(run, result), abs=1e-6)
        assert own["interval"][0] < own["mean"] < own["interval"][1]
        assert ("gain" in own) == (result["model"] != "base")
    by_name = {one["model"]: one for one in figures["results"] if one["eta"] == 0}
    base, tuned = by_name["base"], by_name["ddpo"]
    gain = tuned["groups"]["trained"]["scores"][0]["gain"]["mean"]
    assert gain == pytest.approx(brightness(run, tuned) - brightness(run, base), abs=1e-6)
    assert abs(gain) > 1e-4
    page = (run.evaluation_dir / "report.html").read_text()
    for name in names:
        assert f"<th>{name}</th>" in page
        assert f"{name}, trained" in told.out
    assert f'<p class="note">python {REDNESS}: the models were tuned on it' in page
    assert f'<p class="note">python {BRIGHTNESS}' not in page
    assert command(run, "evaluate") == 0
    assert "evaluate: done" in capsys.readouterr().out


def brightness(run: RunFolder, result: Any) -> float:
    """Return the mean brightness of a result's images of the training prompts."""
    trained = {row["prompt"] for row in result["prompts"] if row["group"] == "trained"}
    images = [run.root / one["path"] for one in result["images"] if one["prompt"] in trained]
    return float(
        np.mean([np.asarray(read_image(path, "").convert("RGB")) / 255 for path in images])
    )

"""The comparison of methods: a variant is trained and judged with every sampler once."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import one_draw
from benchmarks.method_run import SAMPLERS, MethodRun, of_seed
from benchmarks.method_tables import page, plot, table
from benchmarks.method_variants import Variant
from data.errors import PictuneError
from finetune.model.lora import LORA_FILE

pytestmark = pytest.mark.slow

SMALL = (
    'run.prompts={object=["A penguin.", "A monkey."], place=["A dog on the moon."]}',
    'run.focus_prompts=["A dog on the moon."]',
    'reward.split.always_seen=["A dog on the moon."]',
    "sampler.steps=2",
    # Some CPUs compute bf16 ten times as slowly.
    "run.precision=fp32",
    "images.per_prompt=6",
    "images.per_focus_prompt=24",
    "reward.epochs=2",
    "tasks.rankings_per_prompt=1",
    "evaluate.images_per_prompt=2",
    "evaluate.held_out_per_family=1",
    "evaluate.images_per_held_out=2",
    "evaluate.kl_images=2",
    "dpok.iterations=1",
    "dpok.images_per_prompt=4",
    "dpok.micro_batch=4",
    "dpok.updates=1",
    "dpok.validation.images_per_prompt=2",
)
VARIANTS = {
    "DPOK": Variant("dpok", ("dpok.sampler.stochastic_share=1",)),
    "DPOK, again": Variant("dpok", start="DPOK"),
}


# diffusers' solver warns.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
def test_a_variant_is_trained_and_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(Path.cwd() / "models")
    monkeypatch.chdir(tmp_path)
    method_run = MethodRun("small", 3, SMALL, candidates=4)
    found = of_seed(method_run, VARIANTS)
    assert list(found) == ["base", "best of 4", "DPOK", "DPOK, again"]
    tuned, folder = found["DPOK"], Path("runs/small-3/methods")
    assert tuned["queries"] == 4  # a round of them; validations do not count
    first = tuned["curve"][0]
    assert (first["step"], first["queries"]) == (1, 4)
    assert first["kl"] > 0
    assert 0 < first["diversity"] < 2
    # A variant that goes on from another one counts that one's queries and time.
    again = found["DPOK, again"]
    assert [point["queries"] for point in again["curve"]] == [4, 8]
    assert again["minutes"] > tuned["minutes"] > 0
    assert all((folder / name / LORA_FILE).exists() for name in ("DPOK", "DPOK-again"))
    assert set(tuned["samplers"]) == set(SAMPLERS)
    images = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert json.dumps(of_seed(method_run, VARIANTS)) == json.dumps(found)
    assert {path: path.stat().st_mtime_ns for path in images} == images
    message = f"{method_run.folder('DPOK') / 'made.json'}: made from other settings"
    with pytest.raises(PictuneError, match=message):
        of_seed(method_run, {"DPOK": Variant("dpok")})
    _check_pages(found, tmp_path / "plot.png")


def test_one_draw_stands_beside_its_rivals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(Path.cwd() / "models")
    monkeypatch.chdir(tmp_path)
    few = ("finetune.scored_per_prompt=8", "rwl.updates=2", "rwl.validation.images_per_prompt=2")
    method_run = MethodRun("small", 3, (*SMALL, *few), candidates=4, samplers=("DDIM",))
    found = one_draw.of_seed(method_run, [one_draw.FITTED], with_rivals=True)
    assert {name: (row["calls"], row["queries"]) for name, row in found.items()} == {
        "base": (4, 0),
        "best of 4": (16, 4),
        "base, guidance 1": (2, 0),
        "base, guidance 3": (4, 0),
        "base, eta 1": (4, 0),
        "base, eta 1, 8 steps": (16, 0),
        "best of 4, eta 1": (16, 4),
        "steered, 4 particles, eta 1": (16, 16),
        "RWL": (4, 0),
        "RWL, guidance 1": (2, 0),
        "RWL, guidance 3": (4, 0),
        "RWL, eta 1": (4, 0),
        "RWL, eta 1, 8 steps": (16, 0),
    }
    text = one_draw.page({"3": found})
    assert text.count("\n| ") == 1 + len(found)
    assert "Seeds that nothing was chosen on: 3" in text


def _check_pages(found: dict[str, Any], file: Path) -> None:
    """Check the table, the plot and the page of one seed's figures."""
    rows = table([found])
    last = [(row["model"], row["sampler"]) for row in rows[-3:]]
    assert last == [("DPOK, again", sampler) for sampler in SAMPLERS]
    assert all(row["trained"]["gain"]["mean"] == 0 for row in rows[:3])
    plot(rows, [found], file)
    assert file.stat().st_size > 10_000
    text = page(rows, [found], ["3"])
    assert text.count("| DPOK |") == len(SAMPLERS) + 1
    assert f"| base | {100 * rows[0]['trained']['alignment']['mean']:.0f} | +0 |" in text

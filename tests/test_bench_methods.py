"""The comparison of methods: a variant is trained, judged with every sampler, and not trained again."""

import json
from pathlib import Path

import pytest

from benchmarks import methods
from benchmarks.methods import SAMPLERS, Bed, Variant, of_seed, page, plot, table
from data.errors import PictuneError
from finetune.diffusion import LORA_FILE

SMALL = (
    'run.prompts={object=["A penguin.", "A monkey."], place=["A dog on the moon."]}',
    'run.focus_prompts=["A dog on the moon."]',
    'reward.split.always_seen=["A dog on the moon."]',
    "images.per_prompt=6",
    "images.per_focus_prompt=24",
    "images.steps=2",
    "reward.epochs=2",
    "tasks.rankings_per_prompt=1",
    "evaluate.images_per_prompt=2",
    "evaluate.held_out_per_family=1",
    "evaluate.images_per_held_out=2",
    "evaluate.kl_images=2",
    "dpok.iterations=1",
    "dpok.images_per_prompt=4",
    "dpok.micro_batch=4",
    "dpok.steps=2",
    "dpok.updates=1",
    "dpok.validation.images_per_prompt=2",
)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # of diffusers' solver
def test_a_variant_is_trained_and_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "MOST", 4)
    root = Path.cwd()
    (tmp_path / "models").symlink_to(root / "models")
    monkeypatch.chdir(tmp_path)
    bed = Bed("small", 3, SMALL)
    variants = {
        "DPOK": Variant("dpok", ("dpok.stochastic_share=1",)),
        "DPOK, again": Variant("dpok", start="DPOK"),
    }
    found = of_seed(bed, variants)
    assert list(found) == ["base", "best of 4", "DPOK", "DPOK, again"]
    tuned = found["DPOK"]
    # 2 validations of 2 pictures, and a round of 4.
    assert tuned["queries"] == 2 * 2 + 4
    assert tuned["curve"][0] == {
        "step": 1,
        "queries": tuned["queries"],
        "alignment": tuned["curve"][0]["alignment"],
    }
    # What goes on from another variant counts that one's, and looks at the untuned model's 2 pictures as well as at its own start.
    assert [point["queries"] for point in found["DPOK, again"]["curve"]] == [
        tuned["queries"],
        2 * tuned["queries"] + 2,
    ]
    assert all(
        (Path("runs/small-3/methods") / name / LORA_FILE).exists()
        for name in ("DPOK", "DPOK-again")
    )
    assert set(tuned["samplers"]) == set(SAMPLERS)
    pictures = {path: path.stat().st_mtime_ns for path in Path("runs/small-3/methods").rglob("*.*")}
    assert json.dumps(of_seed(bed, variants)) == json.dumps(found)
    assert {path: path.stat().st_mtime_ns for path in pictures} == pictures
    with pytest.raises(
        PictuneError, match=f"{bed.folder('DPOK') / 'made.json'}: made from other settings"
    ):
        of_seed(bed, {"DPOK": Variant("dpok")})
    rows = table([found])
    assert [(row["model"], row["sampler"]) for row in rows[-3:]] == [
        ("DPOK, again", sampler) for sampler in SAMPLERS
    ]
    assert all(row["trained"]["gain"]["mean"] == 0 for row in rows[:3])
    plot([found], tmp_path / "plot.svg")
    assert "DPOK" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
    text = page(rows, {"DPOK": [tuned["guards"]]}, [3])
    assert text.count("| DPOK |") == len(SAMPLERS) + 1
    assert f"| base | {100 * rows[0]['trained']['alignment']['mean']:.0f} | +0 |" in text

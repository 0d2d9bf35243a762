"""A side network through the command line: trained, drawn, and opened by the lines of its card."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from data.runs import RunFolder
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.model.side_network import SIDE_FILE
from finetune.settings.sampler import Sampler
from pipelines.cli import main
from pipelines.finetune.strengths import read_choice
from pipelines.settings.config import read_toml
from tests.support.demo_run import command
from tests.support.small_training import perturb
from tests.support.tuned_run import copy_of, words

pytestmark = pytest.mark.slow

SETTINGS = (
    "finetune.adapter.kind=side",
    "finetune.strengths=[1,1.5]",
    "images.batch=1",
    "rwl.updates=3",
    "rwl.weighting=exp",
    "rwl.learning_rate=3e-3",
)


@pytest.fixture(scope="module")
def run(ready: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a side network."""
    run = copy_of(ready, tmp_path_factory.mktemp("side"))
    assert main(words(run, "rwl", SETTINGS)) == 0
    return run


def test_the_lines_of_its_card_draw_the_same_image_in_a_fresh_process(
    run: RunFolder, tmp_path: Path
) -> None:
    folder, saving = run.finetune_dir("rwl"), f"image.save({str(tmp_path / 'card.png')!r})\n"
    card = (folder / "README.md").read_text()
    assert card.startswith("# side network tuned by RWL")
    whole, at_strength = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    choice = read_choice(folder)
    assert choice is not None
    assert at_strength.endswith(f'"/{SIDE_FILE}", {choice.strength:g})\n')
    # Weights that change the image: the best ones of so short a training may be those before it.
    whole = whole.replace(str(folder), str(tmp_path))
    settings = read_toml(run.root / "config.toml")
    model = DiffusionModel.from_pretrained(settings["run"]["model"])
    model.load_adapter(folder)
    perturb(model, 0.05)
    model.adapter.save(tmp_path)
    subprocess.run([sys.executable, "-c", whole + saving], check=True, timeout=300)

    (prompt,), (seed,) = (
        re.findall(r"^    prompt='(.*)',$", whole, re.MULTILINE),
        re.findall(r"seed\((\d+)", whole),
    )
    (steps,), (scale,) = (re.findall(rf"{name}=([\d.]+)", whole) for name in ("steps", "scale"))
    sampler = Sampler(steps=int(steps), guidance=float(scale), eta=0.0)
    with model.adapter_off():
        base = draw(model, [prompt], sampler, seeds=[int(seed)])
    tuned = draw(model, [prompt], sampler, seeds=[int(seed)])
    found = np.asarray(Image.open(tmp_path / "card.png"), dtype=float)
    assert (tuned - base).abs().max() > 0.02
    assert np.abs(found - 255 * tuned[0].permute(1, 2, 0).numpy()).max() < 1


def test_a_lora_is_exported_for_other_tools_and_a_side_network_is_refused(
    run: RunFolder, ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ("export-adapter", "--method", "rwl", "--format", "kohya")
    assert command(run, *export) == 2
    assert f"{SIDE_FILE}: is a side network, and kohya has LoRAs alone" in capsys.readouterr().err
    copy = copy_of(ready, tmp_path)
    assert command(copy, *export) == 2
    assert "run the finetune stage first" in capsys.readouterr().err
    assert main(words(copy, "rwl", ["rwl.updates=1"])) == 0
    assert command(copy, *export) == 0
    file = copy.finetune_dir("rwl") / "rwl-kohya.safetensors"
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"export-adapter: {file}; it is for the first 50% of the steps")
    assert command(copy, *export, "--to", str(tmp_path / "a" / "lora.safetensors")) == 0
    assert (tmp_path / "a" / "lora.safetensors").read_bytes() == file.read_bytes()
    assert any(name.endswith(".alpha") for name in load_file(file))


@pytest.mark.parametrize(
    ("method", "changes", "trained"),
    [
        ("dpok", ["finetune.adapter.steps_share=0.5"], "0.6"),
        ("ddpo", ["ddpo.adapter.steps_share=0.3", "ddpo.sampler.stochastic_share=0.4"], "0.4"),
        ("reward_gradient", ["finetune.adapter.steps_share=0.5"], "1"),
    ],
)
def test_an_adapter_that_rests_where_its_method_trains_is_refused(
    ready: RunFolder,
    capsys: pytest.CaptureFixture[str],
    method: str,
    changes: list[str],
    trained: str,
) -> None:
    assert main(words(ready, method, changes)) == 2
    told = capsys.readouterr().err
    assert f"{method}.adapter.steps_share" in told
    assert f"set it to {trained} or more" in told
    assert len(told.splitlines()) == 1

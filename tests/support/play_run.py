"""A small run on the embedded model with a reward and an adapter that no training made."""

import json
import shutil
from pathlib import Path

from data.files import write_json
from data.runs import RunFolder
from finetune.settings.adapter_kinds import BASE
from finetune.settings.model import AdapterSettings
from pipelines.cli import main
from pipelines.play.studio import DrawnImage, DrawRequest, Studio
from pipelines.run.judge import EMBEDDED_MODEL
from pipelines.run.model_hashes import REWARD_METRICS
from pipelines.settings.config import Settings, check, read_toml
from pipelines.settings.tables import TABLES
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel
from tests.support.small_training import open_with_adapter, perturb, seeded

SETTINGS = f"""
[run]
model = {json.dumps(str(EMBEDDED_MODEL))}
focus_prompts = ["A cat and a dog."]

[run.prompts]
composition = ["A cat and a dog."]
place = ["A dog on the moon."]

[sampler]
steps = 2

[images]
per_prompt = 3
per_focus_prompt = 3
batch = 4

[tasks]
binary_overlap = 2
rankings_per_prompt = 1

[play]
images = 2
"""
PROMPT = "A cat and a dog."
TUNED = "rwl"


def write_play_run(folder: Path) -> RunFolder:
    """Write a run with images, a reward of random weights, and an adapter of noise."""
    settings, run = folder / "play.toml", RunFolder(folder / "mine")
    settings.write_text(SETTINGS)
    place = ["--runs", str(folder), "--run", run.root.name]
    assert main(["images", *place, "--config", str(settings)]) == 0
    backbone = ClipBackbone.from_pretrained(EMBEDDED_MODEL.with_name("emoji-clip"))
    reward = RewardModel.create(backbone, hidden=[8], members=2, generator=seeded())
    reward.save_pretrained(run.reward_dir)
    write_json(run.reward_dir / REWARD_METRICS, {})
    model = open_with_adapter(EMBEDDED_MODEL, AdapterSettings(rank=2))
    perturb(model, 0.3)
    model.adapter.save(run.finetune_dir(TUNED))
    return run


def copied(run: RunFolder, folder: Path, *without: str) -> RunFolder:
    """Copy the run into a folder, without those of its parts that are named."""
    copy = RunFolder(folder / run.root.name)
    shutil.copytree(run.root, copy.root, symlinks=True)
    for name in without:
        shutil.rmtree(copy.root / name)
    return copy


def settings_of(run: RunFolder) -> Settings:
    """Return the run's settings, all tables checked."""
    return check(read_toml(run.config_file), TABLES, str(run.config_file))


def studio_of(run: RunFolder, folder: Path) -> Studio:
    """Return the run's studio, which writes into a folder."""
    return Studio(run, settings_of(run), folder)


def request(studio: Studio, prompt: str = PROMPT, **changes: object) -> DrawRequest:
    """Return a request for two images of each model in two steps, except for these changes."""
    values: dict[str, object] = {
        "models": [TUNED, BASE],
        "strength": 1.0,
        "guidance": 2.0,
        "steps": 2,
        "first_seed": 7,
        "images": 2,
    }
    return studio.request(prompt, **(values | changes))  # type: ignore[arg-type]


def drawn(studio: Studio, name: str, wanted: DrawRequest) -> list[DrawnImage]:
    """Return what a model draws."""
    return studio.draw(name, wanted, studio.new_folder(), lambda *_: None)

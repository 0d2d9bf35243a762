"""Tiny random models for a run, and settings that name them: diffusion model, CLIP, oracle."""

from pathlib import Path

import torch

from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_diffusion import write_tiny_diffusion
from world.oracle import Oracle, OracleConfig

SETTINGS = """
[run]
model = "{folder}/sd"
judge = "{folder}/oracle"
focus_prompts = ["A green colored rabbit.", "A dog on the moon."]

[run.prompts]
color = ["A green colored rabbit.", "A red cat."]
count = ["Two dogs.", "Three pigs."]
place = ["A dog on the moon."]

[sampler]
steps = 2

[images]
per_prompt = 4
per_focus_prompt = 6
batch = 8

[tasks]
binary_overlap = 2
rankings_per_prompt = 1

[simulate]
raters = 3
noise = 0.5

[reward]
backbone = "{folder}/clip"
hidden = [8]
members = 2
epochs = 2

[finetune]
scored_per_prompt = 2
checkpoints = 2

[rwl]
updates = 2
batch = 4
report_every = 1

[rwl.adapter]
steps_share = 0.5

[rwl.validation]
every = 1
images_per_prompt = 1

[dpok]
iterations = 2
images_per_prompt = 2
prompts_per_iteration = 2
micro_batch = 4

[dpok.validation]
every = 1
images_per_prompt = 1

[ddpo]
iterations = 2
images_per_prompt = 2
prompts_per_iteration = 2
micro_batch = 4

[ddpo.validation]
every = 1
images_per_prompt = 2

[nft]
iterations = 2
images_per_prompt = 2
prompts_per_iteration = 2
noise_levels = 2
updates = 1
micro_batch = 4

[nft.validation]
every = 1
images_per_prompt = 1

[reward_gradient]
iterations = 2
images_per_prompt = 1
prompts_per_iteration = 2
micro_batch = 2

[reward_gradient.validation]
every = 1
images_per_prompt = 1

[preference]
updates = 2
batch = 4
report_every = 1
micro_batch = 4

[preference.validation]
every = 1
images_per_prompt = 1

[evaluate]
images_per_prompt = 2
held_out_per_family = 1
images_per_held_out = 1
best_of = 2
kl_images = 2
"""


def write_tiny_models(folder: Path) -> Path:
    """Write the models to `folder`; return the settings file beside them."""
    write_tiny_diffusion(folder / "sd")
    save_tiny_clip(folder / "clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        oracle = Oracle(OracleConfig(width=8)).eval()
    oracle.save_pretrained(folder / "oracle")
    settings = folder / "tiny.toml"
    settings.write_text(SETTINGS.format(folder=folder))
    return settings

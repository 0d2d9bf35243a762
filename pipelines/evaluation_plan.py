"""The prompts and seeds of the evaluation, which comparisons by people share."""

import random
from collections.abc import Sequence

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from pipelines.comparison import EvaluationPrompt
from pipelines.config import Settings
from pipelines.image_plan import EVALUATION_SEEDS, Planned, candidate_seeds, seeded
from pipelines.prompts import focus_of, prompts_of
from pipelines.tuning_plan import FinetuneConfig
from world.prompts import family_of, held_out_prompts

MOST_PROMPTS = 16
"""Training prompts that are evaluated, the first ones."""


class EvaluateConfig(BaseModel, frozen=True, extra="forbid"):
    """Images of the evaluation, and how often they are drawn."""

    images_per_prompt: PositiveInt = 24
    """Images of each training prompt, for every model and sampler."""
    held_out_per_family: NonNegativeInt = 4
    """Prompts of each family that ask for what the base never saw and no training prompt asks
    for."""
    images_per_held_out: PositiveInt = 4
    """Images of each of them."""
    best_of: PositiveInt = 4
    """Candidates of the base from which the reward picks one, the baseline without training; 1
    omits it."""
    etas: tuple[float, ...] = Field(default=(0.0, 1.0), min_length=1)
    """Samplers: 0 is deterministic DDIM, which users run, 1 ancestral sampling, of which DPOK
    trains the first steps."""
    kl_images: PositiveInt = 16
    """Chains of each tuned model for its KL to the base."""
    encoder: str | None = None
    """Folder, or hub name, of the CLIP whose embeddings tell diversity and distance to the base;
    omitted, it is the reward's own."""


def evaluation_prompts(settings: Settings) -> list[EvaluationPrompt]:
    """Return the training prompts, and held-out prompts of each family.

    The held-out ones ask for what neither the base nor a prompt of training or validation knows.
    """
    config = settings.table("evaluate", EvaluateConfig)
    trained = focus_of(settings.run)[:MOST_PROMPTS]
    validation = settings.table("finetune", FinetuneConfig).validation_prompts
    known = frozenset([*prompts_of(settings.run), *trained, *validation])
    rng = random.Random(settings.run.seed)
    held_out = held_out_prompts(config.held_out_per_family, rng, exclude=known)
    return [
        *(EvaluationPrompt(prompt=p, family=family_of(p), group="trained") for p in trained),
        *(EvaluationPrompt(prompt=p, family=family_of(p), group="held out") for p in held_out),
    ]


def evaluation_images(
    prompts: Sequence[EvaluationPrompt], config: EvaluateConfig, run_seed: int, *, candidates: int
) -> list[Planned]:
    """Return the images of one model under one sampler.

    Further candidates for an image follow it.
    """
    planned = []
    for one in prompts:
        is_trained = one.group == "trained"
        count = config.images_per_prompt if is_trained else config.images_per_held_out
        for first in seeded([one.prompt], count, run_seed, offset=EVALUATION_SEEDS):
            planned += [Planned(one.prompt, s) for s in candidate_seeds(first.seed, candidates)]
    return planned

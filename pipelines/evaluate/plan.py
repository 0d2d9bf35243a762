"""The prompts and seeds of the evaluation, which comparisons by people share."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.evaluate.figures import EvaluationPrompt, Group
from pipelines.run.image_plan import EVALUATION_SEEDS, Planned, candidate_seeds, seeded
from pipelines.run.judge import judge_folder
from pipelines.run.prompts import OTHER, focus_of, held_out_of, prompts_of
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig
from pipelines.settings.stages import EvaluateConfig
from world.prompts import family_of, held_out_prompts


def evaluation_prompts(settings: Settings) -> list[EvaluationPrompt]:
    """Return the evaluated training prompts and all held-out prompts.

    Raises:
        PictuneError: a held-out prompt is also a training or validation prompt.
    """
    config, known = settings.table("evaluate", EvaluateConfig), prompts_of(settings.run)
    validation = settings.table("finetune", FinetuneConfig).validation_prompts
    held_out = held_out_of(settings.run)
    for category, prompts in config.held_out_prompts.items():
        held_out |= dict.fromkeys(prompts, category)
    for words, others in (("run.prompts", known), ("finetune.validation_prompts", validation)):
        if shared := [prompt for prompt in held_out if prompt in others]:
            raise PictuneError(
                f"evaluate: {shared[0]!r} is held out and in {words}; take it out of one of them"
            )
    if config.held_out_per_family and judge_folder(settings.run) is not None:
        rng, asked = random.Random(settings.run.seed), frozenset([*known, *validation, *held_out])
        made = held_out_prompts(config.held_out_per_family, rng, exclude=asked)
        held_out |= {prompt: family_of(prompt) for prompt in made}
    trained = _from_every_category(focus_of(settings.run), known, config.most_prompts)
    parts: dict[Group, dict[str, str | None]] = {"trained": trained, "held out": held_out}
    return [
        EvaluationPrompt(prompt=prompt, family=category or OTHER, group=group)
        for group, prompts in parts.items()
        for prompt, category in prompts.items()
    ]


def _from_every_category(
    prompts: Sequence[str], known: Mapping[str, str | None], most: int
) -> dict[str, str | None]:
    """Return at most `most` prompts with categories: first one of each category, and so on."""
    ranks: dict[str, int] = {}
    seen: Counter[str | None] = Counter()
    for prompt in prompts:
        ranks[prompt] = seen[known[prompt]]
        seen[known[prompt]] += 1
    kept = set(sorted(prompts, key=ranks.__getitem__)[:most])
    return {prompt: known[prompt] for prompt in prompts if prompt in kept}


def omitted_prompts(settings: Settings) -> str | None:
    """Return a line on the training prompts that are not evaluated; None if all are."""
    most = settings.table("evaluate", EvaluateConfig).most_prompts
    count = len(focus_of(settings.run))
    if count <= most:
        return None
    return (
        f"{most} of the {count} training prompts are evaluated, from every category; "
        f'SET="evaluate.most_prompts={count}" evaluates all'
    )


def tuned_on(run: RunFolder, settings: Settings) -> list[str]:
    """Return the names of the scorers that the models were tuned on."""
    rewards = settings.table("finetune", FinetuneConfig).rewards
    learned = {(one.kind, one.path) for one in rewards} or {("model", str(run.reward_dir))}
    scorers = settings.table("evaluate", EvaluateConfig).scorers
    return [one.name for one in scorers if (one.kind, one.path) in learned]


def evaluation_images(
    prompts: Sequence[EvaluationPrompt], config: EvaluateConfig, run_seed: int, *, candidates: int
) -> list[Planned]:
    """Return the images of one model under one sampler.

    Further candidates for an image follow the image.
    """
    planned = []
    for one in prompts:
        is_trained = one.group == "trained"
        count = config.images_per_prompt if is_trained else config.images_per_held_out
        for first in seeded([one.prompt], count, run_seed, offset=EVALUATION_SEEDS):
            planned += [Planned(one.prompt, s) for s in candidate_seeds(first.seed, candidates)]
    return planned

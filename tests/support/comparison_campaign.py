"""A small campaign that has comparisons of models: what raters are asked, and by which words."""

from collections.abc import Sequence
from pathlib import Path

from data.comparisons import Axis
from data.store.feedback_store import FeedbackStore
from labeling_app.campaign.comparisons import (
    CompareConfig,
    ComparedImage,
    Plan,
    plan_comparisons,
    read_wordings,
)
from tests.support.labeling_campaign import COLORS, Campaign, draw

PROMPTS = ("Four wolves in the park.", "A green colored rabbit.")
MODELS = ("base", "rwl")


def compared_images(
    root: Path, prompts: Sequence[str] = PROMPTS, models: Sequence[str] = MODELS, seeds: int = 1
) -> tuple[list[ComparedImage], dict[str, Path]]:
    """Draw an image of each prompt with each seed by each model; return them and their files."""
    images: list[ComparedImage] = []
    paths: dict[str, Path] = {}
    for prompt in prompts:
        for seed in range(seeds):
            for model in models:
                number = len(paths)
                path = root / f"{number}.png"
                image_id = draw(path, COLORS[number % len(COLORS)], number)
                images.append(ComparedImage(image_id, prompt, seed, model))
                paths[image_id] = path
    return images, paths


def planned(
    images: Sequence[ComparedImage],
    axes: Sequence[Axis],
    models: Sequence[str] = MODELS,
    **settings: object,
) -> Plan:
    """Plan comparisons on these axes."""
    config = CompareConfig.model_validate({"axes": axes} | settings)
    return plan_comparisons(images, config, models)


def add_comparisons(store: FeedbackStore, plan: Plan) -> int:
    """Add the plan to the store, with our own words."""
    store.comparisons.set_wordings(read_wordings(CompareConfig()))
    return store.comparisons.add(plan.tasks)


def comparison_campaign(
    root: Path, axes: Sequence[Axis], *, seeds: int = 1, overlap: int = 1
) -> Campaign:
    """Draw images in `root`, plan comparisons of them alone, and add them to a store there."""
    images, paths = compared_images(root, seeds=seeds)
    plan = planned(images, axes, overlap=overlap)
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, plan.tasks)
    with campaign.open_store() as store:
        add_comparisons(store, plan)
    return campaign

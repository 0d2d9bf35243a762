"""Stage `compare`: plan comparisons of models by people; `label` then serves them.

All models draw the same prompts with the same seeds. Existing images are used and missing images
are drawn. Planning again only adds comparisons; labels are never lost.
"""

import argparse

from data.errors import PictuneError
from data.runs import RunFolder
from labeling_app.campaign.comparisons import CompareConfig, plan_comparisons, read_wordings
from pipelines.evaluate.plan import evaluation_prompts, omitted_prompts
from pipelines.flags import stands_for_settings
from pipelines.interruption import ends_at_once
from pipelines.run.campaign import open_store
from pipelines.run.image_plan import EVALUATION_SEEDS, seeded
from pipelines.run.prompts import prompts_of, read_prompts
from pipelines.run.record import record
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings) -> None:
    """Collect the images, add the comparisons to the store, and print the plan.

    Raises:
        PictuneError: models, prompts or words are not valid.
    """
    config = settings.table("compare", CompareConfig)
    wordings = read_wordings(config)
    prompts = compared_prompts(settings, config)
    with ends_at_once():
        from pipelines.compare.images import ImageStore, contenders  # noqa: PLC0415 - loads torch

    models = contenders(run, config.models)
    planned = seeded(prompts, config.images_per_prompt, settings.run.seed, offset=EVALUATION_SEEDS)
    images = ImageStore(run, settings)
    drawn = [image for one in models for image in images.images_of(one, planned)]
    plan = plan_comparisons(drawn, config, [one.name for one in models])
    if not plan.tasks:
        raise PictuneError(
            "compare.models: all models drew the same images, so nothing can be compared; "
            "name models that differ"
        )
    images.write(prompts)
    with open_store(run) as store:
        store.comparisons.set_wordings(wordings)
        added = store.comparisons.add(plan.tasks)
    record(run, settings)
    print(
        f"compare: {len(plan.tasks)} comparisons of {', '.join(one.name for one in models)}, "
        f"{len(prompts)} prompts with {config.images_per_prompt} images each; {added} are new"
    )
    if plan.same:
        print(f"compare: {plan.same} pairs are left out, since both models drew the same image")
    if plan.repeated:
        print(
            f"compare: {plan.repeated} pairs are left out, since another pair of models drew the "
            "same images"
        )
    if config.prompts_file is None and (omitted := omitted_prompts(settings)):
        print(f"compare: {omitted}")


def compared_prompts(settings: Settings, config: CompareConfig) -> dict[str, str | None]:
    """Return the prompts of the comparison, with their categories."""
    if config.prompts_file is None:
        return {one.prompt: one.family for one in evaluation_prompts(settings)}
    known = prompts_of(settings.run)
    listed = read_prompts(config.prompts_file)
    return {one.text: one.category or known.get(one.text) for one in listed}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage; all of them set settings."""
    for flag, example in (("models", "base,rwl,dpok"), ("axes", "overall,appeal")):
        parser.add_argument(
            f"--{flag}",
            type=_listed,
            metavar="A,B",
            help=f"such as {example} (compare.{flag})",
        )
    stands_for_settings(parser, models="compare.models", axes="compare.axes")


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]

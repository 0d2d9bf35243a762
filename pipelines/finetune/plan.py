"""Plan of one training of the run: settings, prompts and start, with their hashes."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from data.errors import PictuneError
from data.files import sha256_of
from data.regions import regions_file
from data.runs import RunFolder
from data.tables.parquet import learned_from_digest
from finetune.settings.adapter_kinds import BASE, adapter_file
from finetune.settings.method import LearnsFromImages, LearnsFromLabels, MethodConfig
from finetune.settings.sampler import Sampler
from pipelines.methods import METHODS
from pipelines.run.campaign import images_digest
from pipelines.run.model_hashes import content_hash, has_reward, reward_hash, weights_hash
from pipelines.run.prompts import focus_of, meta_of, prompts_digest, prompts_of
from pipelines.run.rounds import adapter_to_go_on_from
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig
from reward.dataset import FeedbackDataset
from reward.files import MAPS_FILE
from reward.settings import SERVICES, RewardSource

IMAGES = "images"
"""Subfolder for images that are drawn for the method."""
CHECKPOINTS = "checkpoints"
CARD_FILE = "README.md"


def training_prompts(settings: Settings) -> tuple[str, ...]:
    """Return the prompts that methods train on and that later rounds draw."""
    if settings.table("finetune", FinetuneConfig).train_on == "all":
        return tuple(prompts_of(settings.run))
    return focus_of(settings.run)


def method_prompts(run: RunFolder, settings: Settings, name: str) -> tuple[str, ...]:
    """Return the prompts that a method trains on; refuse missing labels if it needs them."""
    prompts = training_prompts(settings)
    if not isinstance(method_config(settings, name), LearnsFromLabels):
        return prompts
    if settings.table("finetune", FinetuneConfig).train_on == "all":
        return labeled_prompts(run)
    labels_of(run, prompts)
    return prompts


def method_config(settings: Settings, name: str) -> MethodConfig:
    """Return the settings of a method."""
    return settings.table(name, MethodConfig)


def has_regions(settings: Settings, name: str) -> bool:
    """Return whether the method tunes by regions."""
    regions = settings.table("finetune", FinetuneConfig).regions
    return regions != "off" and method_config(settings, name).takes_regions


def check_regions(settings: Settings, name: str) -> None:
    """Refuse `finetune.regions` for a method that would ignore them."""
    is_on = settings.table("finetune", FinetuneConfig).regions != "off"
    if is_on and not method_config(settings, name).takes_regions:
        raise PictuneError(
            f'finetune.regions: {name} learns from whole images; set it to "off" for this method, '
            "or tune by rwl, preference, nft or reward_gradient"
        )


def check_steps(settings: Settings, name: str) -> None:
    """Refuse an adapter that rests in steps that the method trains."""
    config = method_config(settings, name)
    share = config.adapter.steps_share
    trained = config.trained_share(settings.table("sampler", Sampler))
    if share < trained:
        raise PictuneError(
            f"{name}.adapter.steps_share: {share:g} is less than the share of the steps that "
            f"{name} trains, {trained:g}; set it to {trained:g} or more for this method"
        )


def earlier_method(run: RunFolder, settings: Settings, name: str) -> str | None:
    """Return the method whose adapter of this round the training starts from, if any."""
    start = method_config(settings, name).adapter.start
    return start if start in METHODS and run.round == 1 else None


def start_of(run: RunFolder, settings: Settings, name: str) -> str:
    """Return the start of the training: "base" or a folder; in later rounds, the last round's."""
    if run.round > 1:
        return str(run.in_round(run.round - 1).finetune_dir(name))
    earlier = earlier_method(run, settings, name)
    if earlier is None:
        return method_config(settings, name).adapter.start
    return str(run.finetune_dir(earlier))


def _regions_inputs(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Return the hash of the marks, or of the predictor of maps; refuse where there is none."""
    if settings.table("finetune", FinetuneConfig).regions == "predicted":
        if not (run.reward_dir / MAPS_FILE).is_file():
            raise PictuneError(
                f"{run.reward_dir}: no reward with a predictor of maps, which learns from marks; "
                "let raters mark where images are wrong, or import marks, and run `make reward`"
            )
        return {"maps": sha256_of(run.reward_dir / MAPS_FILE)}
    path = regions_file(run.latest)
    if not path.exists():
        raise PictuneError(
            f"{path}: no such file; let raters mark where images are wrong, or import marks, or "
            'set finetune.regions="off"'
        )
    return {"marks": sha256_of(path)}


def input_hashes(run: RunFolder, settings: Settings, name: str) -> dict[str, str]:
    """Return hashes of all inputs of a training, except its settings."""
    prompts, model = method_prompts(run, settings, name), weights_hash(settings.run.model)
    config = method_config(settings, name)
    if run.round > 1:
        adapter_to_go_on_from(run, name, model)
    inputs = {"model": model, "prompts": prompts_digest(prompts)}
    if rewards := settings.table("finetune", FinetuneConfig).rewards:
        inputs |= _reward_inputs(run, settings, rewards)
    elif has_reward(run.reward_dir) or not isinstance(config, LearnsFromLabels):
        inputs["reward"] = reward_hash(run.reward_dir)
    if has_regions(settings, name):
        inputs |= _regions_inputs(run, settings)
    if (start := start_of(run, settings, name)) != BASE:
        inputs["start"] = sha256_of(adapter_file(start))
    if isinstance(config, LearnsFromLabels):
        inputs["labels"] = learned_from_digest(run)
    if isinstance(config, LearnsFromImages):
        inputs["images"] = images_digest(run)
    return inputs


def _reward_inputs(
    run: RunFolder, settings: Settings, rewards: Sequence[RewardSource]
) -> dict[str, str]:
    """Return hashes of what the rewards to tune on depend on."""
    places = [place for source in rewards for place in source.read_from]
    inputs = {f"reward {place}": content_hash(place) for place in places}
    if any(source.kind in SERVICES for source in rewards) and (meta := meta_of(settings.run)):
        inputs["meta"] = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    if any(source.chosen.normalize for source in rewards):
        inputs["images"] = images_digest(run)
    return inputs


def labeled_prompts(run: RunFolder) -> tuple[str, ...]:
    """Return the prompts with labels."""
    return FeedbackDataset.from_latest(run.latest, run.root).prompts


def labels_of(run: RunFolder, prompts: Sequence[str]) -> FeedbackDataset:
    """Return the run's labels of these prompts; refuse if there are no labels."""
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    wanted = set(prompts)
    chosen = [i for i, prompt in enumerate(dataset.prompts) if prompt in wanted]
    found = dataset.where(
        np.isin(dataset.verdicts.prompt, chosen), np.isin(dataset.pairs.prompt, chosen)
    )
    if not len(found.verdicts) + len(found.pairs):
        raise PictuneError(
            f"{run.latest}: no label of the training prompts, of which {prompts[0]!r} is the "
            f"first; label their images, name labeled ones such as {dataset.prompts[0]!r} in "
            'run.focus_prompts, or set finetune.train_on="all"'
        )
    return found

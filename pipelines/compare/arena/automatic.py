"""Automatic figures of the compared images: the reward, the CLIP score, and `reward.baselines`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.compare.arena.analysis import Scores
from pipelines.compare.arena.campaign import Campaign
from pipelines.run.model_hashes import has_reward
from pipelines.run.models import (
    device_of,
    embedding_bar,
    open_backbone,
    open_cache,
    open_reward_model,
)
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings, check
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.embedding import ENCODE_BATCH, embed_prompts, embed_readable
from reward.measuring.baselines import score_files
from reward.settings import RewardConfig

REWARD, CLIP_SCORE = "reward", "CLIP score"
"""Names of the figures that need no setting."""


@dataclass(frozen=True, eq=False)
class _Images:
    """Images with the prompts that they were drawn for, and how they are encoded."""

    paths: Sequence[Path]
    prompts: Sequence[str]
    batch: int
    cache: EmbeddingCache

    def embedded(self, backbone: ClipBackbone) -> tuple[Tensor, Tensor, list[int]]:
        """Return features and prompts' embeddings of those that can be read, and their numbers."""
        features, rows = embed_readable(
            self.paths,
            backbone,
            batch_size=self.batch,
            skipped=_skip,
            track=embedding_bar,
            cache=self.cache,
        )
        texts = embed_prompts([self.prompts[i] for i in rows], backbone, cache=self.cache)
        return features, texts, rows


def automatic_scores(run: RunFolder, settings: Settings, campaign: Campaign) -> Scores:
    """Return the figures of every compared image by the run's reward and its baselines.

    Without a trained reward there are those of `reward.baselines` alone. Images whose file is gone
    or broken have none.

    Raises:
        PictuneError: a reward cannot be loaded.
    """
    config = check(settings.tables, ["reward"], str(run.config_file)).table("reward", RewardConfig)
    compared = campaign.images[campaign.images.index.isin(list(campaign.model_of))]
    there = compared[[(run.root / path).is_file() for path in compared["path"]]]
    paths, prompts = [run.root / path for path in there["path"]], there["prompt"].tolist()
    images = _Images(paths, prompts, ENCODE_BATCH, open_cache(run))
    scores: dict[str, dict[int, float]] = {}
    folder = with_reward(run).reward_dir
    if has_reward(folder):
        scores |= _by_reward(settings, folder, images)
    for source in config.baselines:
        values = score_files(
            source,
            paths,
            prompts,
            batch_size=ENCODE_BATCH,
            device=device_of(settings.run),
            track=embedding_bar,
        )
        scores[source.name] = dict(enumerate(values.tolist()))
    names = [str(image) for image in there.index]
    return {
        name: {names[row]: value for row, value in values.items()}
        for name, values in scores.items()
    }


@torch.no_grad()
def _by_reward(settings: Settings, folder: Path, images: _Images) -> dict[str, dict[int, float]]:
    """Return reward and CLIP score by the number of the image."""
    model = open_reward_model(folder, settings.run)
    features, texts, rows = images.embedded(model.backbone)
    rewards, _ = model.score_features_with_std(image_features=features, text_embeddings=texts)
    found = {REWARD: dict(zip(rows, rewards.tolist(), strict=True))}
    if model.backbone.tuned_blocks:  # the score is that of the CLIP that no label has touched
        clip = open_backbone(model.backbone.name, settings.run)
        features, texts, rows = images.embedded(clip)
    cosines = (features[:, : texts.shape[1]] * texts).sum(-1)
    return found | {CLIP_SCORE: dict(zip(rows, cosines.tolist(), strict=True))}


def _skip(error: PictuneError) -> None:
    print(f"skipped: {error}", file=sys.stderr)

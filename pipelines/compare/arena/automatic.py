"""Automatic figures of the compared images: the reward, the CLIP score, and `reward.baselines`."""

import sys

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
    open_cache,
    open_reward_model,
)
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings, check
from reward.clip.backbone import ClipBackbone
from reward.embedding import ENCODE_BATCH, embed_prompts, embed_readable
from reward.measuring.baselines import score_files
from reward.settings import RewardConfig


@torch.no_grad()
def automatic_scores(run: RunFolder, settings: Settings, campaign: Campaign) -> Scores:
    """Return the figures of every compared image by the run's reward and its baselines.

    Without a trained reward, only `reward.baselines` are computed. Images with a missing or broken
    file have no figures.

    Raises:
        PictuneError: a reward cannot be loaded.
    """
    config = check(settings.tables, ["reward"], str(run.config_file)).table("reward", RewardConfig)
    compared = campaign.images[campaign.images.index.isin(list(campaign.model_of))]
    there = compared[[(run.root / path).is_file() for path in compared["path"]]]
    names, prompts = [str(image) for image in there.index], there["prompt"].tolist()
    paths, cache = [run.root / path for path in there["path"]], open_cache(run)

    def embedded(backbone: ClipBackbone) -> tuple[Tensor, Tensor, list[str]]:
        features, rows = embed_readable(
            paths,
            backbone,
            batch_size=ENCODE_BATCH,
            skipped=_skip,
            track=embedding_bar,
            cache=cache,
        )
        texts = embed_prompts([prompts[i] for i in rows], backbone, cache=cache)
        return features, texts, [names[i] for i in rows]

    scores: dict[str, dict[str, float]] = {}
    folder = with_reward(run).reward_dir
    if has_reward(folder):
        model = open_reward_model(folder, settings.run)
        features, texts, ids = embedded(model.backbone)
        rewards, _ = model.score_features_with_std(image_features=features, text_embeddings=texts)
        scores["reward"] = dict(zip(ids, rewards.tolist(), strict=True))
        cosines = (features[:, : texts.shape[1]] * texts).sum(-1)
        scores["CLIP score"] = dict(zip(ids, cosines.tolist(), strict=True))
    for source in config.baselines:
        values = score_files(
            source,
            paths,
            prompts,
            batch_size=ENCODE_BATCH,
            device=device_of(settings.run),
            track=embedding_bar,
        )
        scores[source.name] = dict(zip(names, values.tolist(), strict=True))
    return scores


def _skip(error: PictuneError) -> None:
    print(f"skipped: {error}", file=sys.stderr)

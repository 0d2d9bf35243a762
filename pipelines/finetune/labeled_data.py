"""Labels that a method learns from, with the latents of their images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.runs import RunFolder
from finetune.labels.slates import LabeledImages, Labels, Slates, Verdicts
from finetune.learning.reward_fn import RewardFn
from finetune.settings.method import LearnsFromLabels
from pipelines.finetune.plan import labels_of
from pipelines.finetune.rewarded_images import Encoder
from reward.dataset import FeedbackDataset
from reward.learning.label_tensors import LabelTensors
from reward.learning.split import split_feedback
from reward.settings import SplitConfig

CPU = torch.device("cpu")


def labeled_data(
    run: RunFolder,
    prompts: Sequence[str],
    config: LearnsFromLabels,
    encoder: Encoder,
    reward: RewardFn | None,
) -> LabeledImages:
    """Return the labels of these prompts, split by image, with the latents of their images.

    The images that are held out are, for the same share, those that the training of a reward keeps
    for its test. `reward` scores them.

    Raises:
        PictuneError: there are no such labels, or the raters' weights are not known.
    """
    dataset = labels_of(run, prompts)
    shares = SplitConfig(
        split_by="image",
        validation=0.0,
        unseen_prompts=0.0,
        test_images=config.held_out,
    )
    split = split_feedback(dataset, shares)
    verdicts, pairs = dataset.verdicts, dataset.pairs
    images = np.concatenate([verdicts.image, pairs.image_0, pairs.image_1])
    prompts_of_images = np.concatenate([verdicts.prompt, pairs.prompt, pairs.prompt])
    used, first = np.unique(images, return_index=True)
    paths = [dataset.paths[i] for i in used]
    texts = [dataset.prompts[i] for i in prompts_of_images[first]]
    rows = torch.zeros(len(dataset.paths), dtype=torch.long)
    rows[torch.from_numpy(used)] = torch.arange(len(used))
    # A ranking whose other pairs teach is not whole any more.
    held_out = _labels(split.test_seen, config, rows, whole_rankings=False)
    return LabeledImages(
        latents=encoder.encode(paths, texts, None).latents,
        prompts=dataset.prompts,
        taught=_labels(split.train, config, rows, whole_rankings=True),
        held_out=held_out,
        rewards=None if reward is None else _rewards(held_out, paths, texts, encoder, reward),
    )


def _labels(
    part: FeedbackDataset, config: LearnsFromLabels, rows: Tensor, *, whole_rankings: bool
) -> Labels:
    """Return the labels of a part; `rows` has the row of each image of the dataset."""
    labels = LabelTensors.from_part(
        part, CPU, weighting=config.label_weights, whole_rankings=whole_rankings
    )
    none = torch.zeros(0, dtype=torch.long)
    slates = Slates(none.view(0, 2), torch.zeros(0, 2), none, torch.zeros(0))
    if labels.n_rankings:
        ranked = labels.padded_rankings
        ranks = ranked.ranks.masked_fill(~ranked.present, torch.nan)
        slates = Slates(rows[ranked.image], ranks, ranked.prompt, ranked.weight)
    verdicts = Verdicts(rows[labels.image], labels.prompt, labels.good, labels.raters)
    return Labels(slates, verdicts)


def _rewards(
    held_out: Labels,
    paths: Sequence[Path],
    texts: Sequence[str],
    encoder: Encoder,
    reward: RewardFn,
) -> Tensor:
    """Return the rewards [N] of all images, NaN for those that are not held out."""
    both = [held_out.rankings.image.flatten(), held_out.verdicts.image]
    chosen = torch.cat(both).unique()
    rewards = torch.full((len(paths),), torch.nan)
    some = chosen.tolist()
    rewards[chosen] = encoder.rewards([paths[i] for i in some], [texts[i] for i in some], reward)
    return rewards

"""Training images and labels, and the user's own pairs of image and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import COMPARISON, IMAGES, read_table
from finetune.labels.rankings import LabeledImages, Labels, Rankings, Verdicts
from finetune.labels.weighted_batches import WeightedData
from finetune.learning.reward_fn import RewardFn, score
from finetune.model.diffusion import DiffusionModel
from finetune.settings.method import LearnsFromLabels
from finetune.settings.sampler import Sampler
from pipelines.finetune.plan import labels_of, read_pairs
from pipelines.finetune.regions import MarkedImages
from pipelines.run.drawing import Batches, Drawer
from pipelines.run.image_io import load_fitted
from pipelines.run.image_plan import Planned
from pipelines.run.rounds import labeled_images
from reward.dataset import FeedbackDataset
from reward.learning.label_tensors import LabelTensors
from reward.learning.split import split_feedback
from reward.settings import SplitConfig

Choice = Literal["labeled", "scored", "both"]


@dataclass
class Encoder:
    """Turns image files into latents of the model's own image size."""

    model: DiffusionModel
    sampler: Sampler
    """Sampler of missing images."""
    batch: int
    """Images per batch, if they fit into the device's memory."""
    marked: MarkedImages | None = None
    """Masks of the run's images; None to learn from whole images."""

    def __post_init__(self) -> None:
        self._batches = Batches(self.batch)

    def encode(
        self, paths: Sequence[Path], prompts: Sequence[str], reward: RewardFn | None
    ) -> WeightedData:
        """Return latents with rewards, or with zeros if `reward` is None."""

        def encoded(rows: slice) -> tuple[Tensor, Tensor]:
            images = self._images(paths[rows])
            rewards = score(reward, images, prompts[rows]) if reward else torch.zeros(len(images))
            return self.model.encode_images(images), rewards

        title = "score" if reward else "encode"
        parts = list(self._batches.over(len(paths), encoded, title))
        latents, rewards = (torch.cat(some) for some in zip(*parts, strict=True))
        wrong = None if self.marked is None else self.marked.of_files(paths)
        return WeightedData(latents, list(prompts), rewards, wrong)

    def rewards(self, paths: Sequence[Path], prompts: Sequence[str], reward: RewardFn) -> Tensor:
        """Return the rewards [N] on the CPU, without latents."""

        def scored(rows: slice) -> Tensor:
            return score(reward, self._images(paths[rows]), prompts[rows]).cpu()

        parts = list(self._batches.over(len(paths), scored, "score labeled"))
        return torch.cat(parts) if parts else torch.zeros(0)

    def _images(self, paths: Sequence[Path]) -> Tensor:
        """Return images [N, 3, H, W] of the model's size, on its device."""
        fitted = [load_fitted(path, self.model.image_size) for path in paths]
        return torch.stack(fitted).to(self.model.device)


def run_images(run: RunFolder, prompts: Sequence[str], which: Choice) -> list[tuple[Path, str]]:
    """Return the run's images of these prompts, each with its prompt; `which` selects by label."""
    table = read_table(run.images_table, IMAGES).select(["path", "prompt", "origin"])
    rows = [row for row in table.to_pylist() if row["origin"] != COMPARISON]
    wanted = [
        (run.root / row["path"], prompt)
        for prompt in prompts
        for row in rows
        if row["prompt"] == prompt
    ]
    if which == "both":
        return wanted
    labeled = set(FeedbackDataset.from_latest(run.latest, run.root).paths)
    return [one for one in wanted if (one[0] in labeled) == (which == "labeled")]


def labeled_rewards(
    run: RunFolder, prompts: Sequence[str], encoder: Encoder, reward: RewardFn
) -> dict[str, Tensor]:
    """Return the rewards [n] of the current round's labeled images, by prompt."""
    labeled = labeled_images(run)
    rows = [
        row
        for row in read_table(run.images_table, IMAGES).to_pylist()
        if row["image_id"] in labeled and row["prompt"] in prompts
    ]
    texts = [row["prompt"] for row in rows]
    rewards = encoder.rewards([run.root / row["path"] for row in rows], texts, reward)
    return {
        prompt: rewards[[i for i, other in enumerate(texts) if other == prompt]]
        for prompt in dict.fromkeys(texts)
    }


def rewarded_images(
    run: RunFolder,
    prompts: Sequence[str],
    which: Choice,
    encoder: Encoder,
    reward: RewardFn,
    *,
    scored: Sequence[Planned],
    folder: Path,
    table: str,
) -> WeightedData:
    """Return images of the training prompts with rewards; the base draws `scored`.

    `table` is the name of the method's settings, for errors.
    """
    beside = [] if which == "labeled" else list(scored)
    model, sampler = encoder.model, encoder.sampler
    with model.adapter_off():
        drawer = Drawer(model, encoder.batch, model.processes)
        drawer.draw_missing(beside, folder, sampler, title="scored images")
    images = run_images(run, prompts, which)
    images += [(folder / one.file_name, one.prompt) for one in beside]
    if not images:
        advice = "label images of those prompts"
        if which == "scored":
            advice = "set finetune.scored_per_prompt"
        raise PictuneError(
            f"{table}.images: no {which} image of the training prompts; {advice}, "
            "or use another value"
        )
    return encoder.encode([path for path, _ in images], [prompt for _, prompt in images], reward)


def pretraining_pairs(folder: Path | None, encoder: Encoder) -> WeightedData | None:
    """Return the user's pairs; None without a folder."""
    if folder is None:
        return None
    pairs = read_pairs(folder)
    paths = [folder / pair.file_name for pair in pairs]
    return encoder.encode(paths, [pair.text for pair in pairs], None)


def labeled_data(
    run: RunFolder,
    prompts: Sequence[str],
    config: LearnsFromLabels,
    encoder: Encoder,
    reward: RewardFn | None,
) -> LabeledImages:
    """Return the labels of these prompts, split by image, with the latents of their images.

    With the same share, a reward's training holds out the same images for its test. `reward` scores
    the held-out images.
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
    # A ranking with other pairs in training is not complete.
    held_out = _labels(split.test_seen, config, rows, whole_rankings=False)
    encoded = encoder.encode(paths, texts, None)
    return LabeledImages(
        latents=encoded.latents,
        wrong=encoded.wrong,
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
        part, weighting=config.label_weights, whole_rankings=whole_rankings
    )
    none = torch.zeros(0, dtype=torch.long)
    rankings = Rankings(none.view(0, 2), none, torch.zeros(0), torch.zeros(0, 2))
    if labels.n_rankings:
        ranked = labels.padded_rankings
        ranks = ranked.ranks.masked_fill(~ranked.present, torch.nan)
        rankings = Rankings(rows[ranked.image], ranked.prompt, ranked.weight, ranks)
    verdicts = Verdicts(rows[labels.image], labels.prompt, labels.raters, labels.good)
    return Labels(rankings, verdicts)


def _rewards(
    held_out: Labels,
    paths: Sequence[Path],
    texts: Sequence[str],
    encoder: Encoder,
    reward: RewardFn,
) -> Tensor:
    """Return the rewards [N] of all images; NaN for images that are not held out."""
    both = [held_out.rankings.image.flatten(), held_out.verdicts.image]
    chosen = torch.cat(both).unique()
    rewards = torch.full((len(paths),), torch.nan)
    some = chosen.tolist()
    rewards[chosen] = encoder.rewards([paths[i] for i in some], [texts[i] for i in some], reward)
    return rewards

"""Training images and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.labels.rankings import LabeledImages, Labels, Rankings, Verdicts
from finetune.labels.weighted_batches import WeightedData
from finetune.learning.reward_fn import RewardFn, score
from finetune.model.diffusion import DiffusionModel
from finetune.settings.method import LearnsFromLabels
from finetune.settings.sampler import Sampler
from pipelines.finetune.plan import labels_of
from pipelines.finetune.regions import MarkedImages, PredictedRegions
from pipelines.run.campaign import own_images
from pipelines.run.drawing import Batches, Drawer
from pipelines.run.image_io import load_fitted
from pipelines.run.image_plan import Planned
from reward.dataset import FeedbackDataset
from reward.learning.label_tensors import LabelTensors
from reward.learning.split import split_feedback
from reward.settings import SplitConfig


@dataclass
class Encoder:
    """Turns image files into latents of the model's own image size."""

    model: DiffusionModel
    sampler: Sampler
    """Sampler of missing images."""
    batch: int
    """Images per batch, if they fit into the device's memory."""
    marked: MarkedImages | PredictedRegions | None = None
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
        wrong = None if self.marked is None else self.marked.of_files(paths, prompts)
        return WeightedData(latents, list(prompts), rewards, wrong)

    def _images(self, paths: Sequence[Path]) -> Tensor:
        """Return images [N, 3, H, W] of the model's size, on its device."""
        fitted = [load_fitted(path, self.model.image_size) for path in paths]
        return torch.stack(fitted).to(self.model.device)


def run_images(run: RunFolder, prompts: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the images of `own_images` of these prompts, each with its prompt."""
    rows = own_images(run).select(["path", "prompt"]).to_pylist()
    return [
        (run.root / row["path"], prompt)
        for prompt in prompts
        for row in rows
        if row["prompt"] == prompt
    ]


def rewarded_images(
    run: RunFolder,
    prompts: Sequence[str],
    encoder: Encoder,
    reward: RewardFn,
    *,
    scored: Sequence[Planned],
    folder: Path,
) -> WeightedData:
    """Return images of the training prompts with rewards; the base draws `scored`."""
    model, sampler = encoder.model, encoder.sampler
    with model.adapter_off():
        drawer = Drawer(model, encoder.batch, model.processes)
        drawer.draw_missing(scored, folder, sampler, title="scored images")
    images = run_images(run, prompts)
    images += [(folder / one.file_name, one.prompt) for one in scored]
    if not images:
        raise PictuneError(
            f"{run.images_table}: no image of the training prompts; draw some with `make images`, "
            "or set finetune.scored_per_prompt"
        )
    return encoder.encode([path for path, _ in images], [prompt for _, prompt in images], reward)


def labeled_data(
    run: RunFolder,
    prompts: Sequence[str],
    config: LearnsFromLabels,
    encoder: Encoder,
) -> LabeledImages:
    """Return the labels of these prompts, split by image, with the latents of their images.

    With the same share, a reward's training holds out the same images for its test.
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
    encoded = encoder.encode(paths, texts, None)
    return LabeledImages(
        latents=encoded.latents,
        wrong=encoded.wrong,
        prompts=dataset.prompts,
        taught=_labels(split.train, config, rows, whole_rankings=True),
        held_out=_labels(split.test_seen, config, rows, whole_rankings=False),
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

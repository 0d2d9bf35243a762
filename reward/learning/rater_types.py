"""Rewards by type of rater, learned by EM.

The user model of PASTA (Nabati et al. 2025, arXiv 2412.10419):

    E: share_i(k) ~ prior(k) * product over the labels of rater i of p_k(label)
    M: the reward of each type k on all labels, each weighted by share_i(k) of its rater;
       prior(k) = mean of share_i(k)

Differs from the paper in: 1. the encoders are frozen, and each type has a whole ensemble of heads;
2. all raters' shares are computed again after every epoch, not for each mini-batch; 3. the types
   start from the pooled reward of all raters, and the shares from k-means of the directions in
   which raters' labels deviate from it, since heads with random starts diverge slowly; 4. no share
   falls below 0.001 during training, so that every type has labels; 5. a ranking is one
   observation: its pairs are weighted.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from scipy.special import expit, log_expit, logsumexp, softmax
from sklearn.cluster import KMeans
from torch import Tensor

from data.errors import PictuneError
from data.files import sha256_of, write_json
from reward.calibration import Values
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, Indices, Numbers
from reward.files import CONFIG_FILE, TYPES_FILE
from reward.learning.examples import Examples, as_values, logits_and_margins
from reward.learning.objective import Objective
from reward.learning.training import PATIENCE, optimizer_of, train_epoch
from reward.model import RewardModel
from reward.settings import RewardConfig

LEAST_SHARE = 1e-3
"""Lower bound of a rater's share in a type during training."""


class RaterTypesConfig(BaseModel, frozen=True, extra="forbid"):
    """Content of `types.json` of saved rater types."""

    prior: tuple[float, ...]
    """Share of the raters in each type."""
    raters: dict[str, tuple[float, ...]]
    """Probability of each type, by rater."""
    types_sha256: tuple[str, ...]
    """SHA-256 of each type's `config.json`, so that files of two trainings are not mixed."""


@dataclass(frozen=True, eq=False)
class RaterTypes:
    """A reward for each type of rater."""

    models: tuple[RewardModel, ...]
    prior: Values
    """[k], share of the raters in each type."""
    raters: dict[str, tuple[float, ...]]
    """Probability of each type, by rater."""

    @property
    def likeliest_of(self) -> list[int]:
        """Number of raters by their most probable type."""
        likeliest = np.argmax(list(self.raters.values()), axis=1)
        counts: list[int] = np.bincount(likeliest, minlength=len(self.models)).tolist()
        return counts

    def score(
        self, *, images: Tensor, prompts: Sequence[str], shares: Sequence[float] | None = None
    ) -> Tensor:
        """Return the probability that a rater calls each image good, [B], as `RewardModel.score`.

        `shares` [k] are the probabilities of the rater's types: `raters[...]` for a known rater;
        the default is the prior.
        """
        weights = torch.tensor(self.prior if shares is None else shares, dtype=torch.float32)
        weighted = [
            weight * model.score(images=images, prompts=prompts)
            for weight, model in zip(weights, self.models, strict=True)
        ]
        return torch.stack(weighted).sum(0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write each type's model into a folder `type-0`, `type-1`, ..., then `types.json`.

        Raises:
            PictuneError: the files cannot be written.
        """
        folder = Path(folder)
        folders = [folder / f"type-{number}" for number in range(len(self.models))]
        for model, each in zip(self.models, folders, strict=True):
            model.save_pretrained(each)
        digests = tuple(sha256_of(each / CONFIG_FILE) for each in folders)
        config = RaterTypesConfig(
            prior=tuple(self.prior.tolist()), raters=self.raters, types_sha256=digests
        )
        write_json(folder / TYPES_FILE, config.model_dump())

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, backbone: ClipBackbone) -> Self:
        """Load saved rater types.

        Raises:
            PictuneError: files are missing, broken or of two trainings, or the types were trained
                on another backbone.
        """
        folder = Path(folder)
        try:
            config = RaterTypesConfig.model_validate_json((folder / TYPES_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise PictuneError(
                f"{folder / TYPES_FILE}: no saved rater types ({reason}); remove {folder} and run "
                "`make reward`"
            ) from error
        models = []
        for number, wanted in enumerate(config.types_sha256):
            models.append(RewardModel.from_pretrained(folder / f"type-{number}", backbone=backbone))
            if sha256_of(folder / f"type-{number}" / CONFIG_FILE) != wanted:
                raise PictuneError(
                    f"{folder}: type-{number} and {TYPES_FILE} are of two trainings; remove "
                    f"{folder} and run `make reward`"
                )
        return cls(tuple(models), np.array(config.prior), config.raters)


def fit_types(
    pooled: RewardModel, examples: Examples, config: RewardConfig, *, generator: torch.Generator
) -> RaterTypes:
    """Return `config.rater_types` rewards, trained by EM from `pooled`, the reward of all raters.

    `pooled` is not changed. `generator` (CPU) orders the labels. The epoch with the lowest
    validation loss is kept, or the last epoch without validation labels.

    Raises:
        PictuneError: there are fewer raters than types.
    """
    teaching, validating = examples.split.train, examples.split.val
    known, types = teaching.labeling_raters, config.rater_types
    if len(known) < types:
        raise PictuneError(
            f"reward.rater_types: {types} types of {len(known)} raters; set it lower, or let more "
            "people label"
        )
    shared = {id(pooled.backbone): pooled.backbone}
    models = tuple(copy.deepcopy(pooled, dict(shared)) for _ in range(types))
    objectives = [Objective(model, examples, config) for model in models]
    optimizers = [optimizer_of(objective, config) for objective in objectives]
    shares = _first_shares(pooled, examples, config)
    best_loss, best_epoch, best = np.inf, 0, (shares, [model.head.state_dict() for model in models])
    for epoch in range(1, config.epochs + 1):
        for column, objective, optimizer in zip(shares.T, objectives, optimizers, strict=True):
            counts = np.clip(column, LEAST_SHARE, None).astype(np.float32)
            labels = objective.labels(teaching, shares=counts)
            train_epoch(objective, optimizer, labels, config.batch_size, generator)
        shares = posterior(models, shares[known].mean(0), examples, teaching)
        loss = _loss(models, shares, examples, validating)
        if loss is None or loss < best_loss:
            best_loss, best_epoch = np.inf if loss is None else loss, epoch
            best = shares, [copy.deepcopy(model.head.state_dict()) for model in models]
        elif epoch - best_epoch >= PATIENCE:
            break
    shares, weights = best
    for model, kept in zip(models, weights, strict=True):
        model.head.load_state_dict(kept)
    prior, names = shares[known].mean(0), teaching.raters
    return RaterTypes(models, prior, {names[i]: tuple(shares[i].tolist()) for i in known})


def posterior(
    models: Sequence[RewardModel], prior: Values, examples: Examples, part: FeedbackDataset
) -> Values:
    """Return the probability of each type for each rater, [raters, k], from the labels in `part`.

    Raters without labels get the prior.
    """
    count = len(part.raters)
    logs = np.log(np.clip(prior, LEAST_SHARE, None))[None] + np.zeros((count, 1))
    for k, model in enumerate(models):
        of_verdicts, of_pairs = _log_likelihoods(model, examples, part)
        by_verdicts = np.bincount(part.verdicts.rater, of_verdicts, count)
        by_pairs = np.bincount(part.pairs.rater, of_pairs, count)
        logs[:, k] += by_verdicts + by_pairs
    shares: Values = softmax(logs, axis=1)
    return shares


def _log_likelihoods(
    model: RewardModel, examples: Examples, part: FeedbackDataset
) -> tuple[Values, Values]:
    """Return the log-likelihood of each verdict [V] and, times its weight, of each pair [K].

    Every rater is taken to be of the model's type.
    """
    logits, margins = logits_and_margins(model, examples, part)
    single = _log_likelihood(part.verdicts.good, logits)
    return single, _log_likelihood(part.pairs.label_0, margins) * part.pairs.weight


def _log_likelihood(labels: Numbers, logits: Values) -> Values:
    label = labels.astype(np.float64)
    found: Values = label * log_expit(logits) + (1 - label) * log_expit(-logits)
    return found


def _loss(
    models: Sequence[RewardModel], shares: Values, examples: Examples, part: FeedbackDataset
) -> float | None:
    """Return the mean negative log-likelihood of the labels of `part`; None without labels.

    `shares` [raters, k] are the probabilities of each rater's types.
    """
    raters = np.concatenate([part.verdicts.rater, part.pairs.rater])
    if not len(raters):
        return None
    likelihoods = [_log_likelihoods(model, examples, part) for model in models]
    by_type = np.stack([np.concatenate(each) for each in likelihoods], axis=1)
    return float(-logsumexp(by_type, axis=1, b=shares[raters]).mean())


def _first_shares(pooled: RewardModel, examples: Examples, config: RewardConfig) -> Values:
    """Return shares [raters, k] from k-means of the training raters' directions.

    A direction is the mean of (label - probability) * embeddings over a rater's labels.
    """
    part = examples.split.train
    verdicts, pairs, n_raters = part.verdicts, part.pairs, len(part.raters)

    def seen(image: Indices, prompt: Indices) -> Values:
        texts = examples.text_embeddings[torch.from_numpy(prompt)]
        images = examples.image_features[torch.from_numpy(image), : texts.shape[1]]
        return as_values(torch.cat([images, images * texts * pooled.backbone.dim**0.5], dim=1))

    logits, margins = logits_and_margins(pooled, examples, part)
    of_verdicts = (verdicts.good - expit(logits))[:, None] * seen(verdicts.image, verdicts.prompt)
    differences = seen(pairs.image_0, pairs.prompt) - seen(pairs.image_1, pairs.prompt)
    of_pairs = (pairs.label_0 - expit(margins))[:, None] * differences
    raters, known = np.concatenate([verdicts.rater, pairs.rater]), part.labeling_raters
    rows = np.concatenate([of_verdicts, of_pairs])
    means = np.zeros((n_raters, rows.shape[1]))
    np.add.at(means, raters, rows)
    means = means[known] / np.bincount(raters)[known, None]
    groups = KMeans(config.rater_types, n_init=10, random_state=config.seed).fit_predict(means)
    shares = np.full((n_raters, config.rater_types), 1 / config.rater_types)
    shares[known] = np.eye(config.rater_types)[groups]
    return shares

"""Rewards by type of rater, learned by EM (the user model of PASTA, Nabati et al. 2025, arXiv 2412.10419).

    E: share_i(k) ~ prior(k) * product over the labels of rater i of p_k(label)
    M: the reward of each type k on all labels, each label counting by share_i(k) of its rater; prior(k) = mean of share_i(k)

Differs from the paper in: 1. the encoders are frozen, and each type has a whole ensemble of heads; 2. all raters' shares are worked out
anew after every epoch, not for each mini-batch; 3. the types start from the reward of all raters together, and raters from k-means of the
directions in which their labels depart from it: heads with random starts take long to come apart; 4. no share falls below 0.001 while the
heads learn, so that none is left without labels; 5. a ranking is one observation: its pairs count by their weight.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from scipy.special import expit, log_expit, logsumexp, softmax
from sklearn.cluster import KMeans
from torch import Tensor

from data.errors import PictuneError
from data.files import sha256_of, write_json
from reward.backbone import ClipBackbone
from reward.calibration import Values
from reward.dataset import FeedbackDataset, Indices, Mask
from reward.evaluation import logits_and_margins
from reward.examples import Examples
from reward.model import CONFIG_FILE, RewardModel
from reward.objective import Objective
from reward.raters import LabelRaters
from reward.training import RewardConfig, optimizer_of, train_epoch

TYPES_FILE = "types.json"
LEAST_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class RatedPart:
    """A part of the labels with who gave them."""

    labels: FeedbackDataset
    of_verdicts: Indices
    """[V], the rater of each verdict."""
    of_pairs: Indices
    """[K], the rater of each pair."""

    @classmethod
    def of(cls, examples: Examples, part: FeedbackDataset, raters: LabelRaters) -> Self:
        """A part of `examples.split`; `raters` are those of `examples.dataset`."""
        mine = raters.of_part(examples.dataset, part)
        return cls(part, mine.of_verdicts, mine.of_pairs)

    def of_raters(self, chosen: Mask) -> "RatedPart":
        """The labels of the raters [R] for whom `chosen` holds."""
        verdicts, pairs = chosen[self.of_verdicts], chosen[self.of_pairs]
        return RatedPart(
            self.labels.where(verdicts, pairs), self.of_verdicts[verdicts], self.of_pairs[pairs]
        )

    @property
    def raters(self) -> Indices:
        """Those who gave a label, sorted."""
        return np.unique(np.concatenate([self.of_verdicts, self.of_pairs]))


class RaterTypesConfig(BaseModel, frozen=True, extra="forbid"):
    """What `types.json` of saved rater types says."""

    prior: tuple[float, ...]
    """Share of the raters that each type has."""
    raters: dict[str, tuple[float, ...]]
    """By rater, the probability of each type."""
    types_sha256: tuple[str, ...]
    """SHA-256 of each type's `config.json`, so that types of two trainings are never mixed."""


@dataclass(frozen=True, eq=False)
class RaterTypes:
    """A reward for each type of rater."""

    models: tuple[RewardModel, ...]
    prior: Values
    """[k], share of the raters that each type has."""
    raters: dict[str, tuple[float, ...]]
    """By rater, the probability of each type."""

    @property
    def summary(self) -> dict[str, Any]:
        """Ready for JSON: how many `types` there are, the `prior` of each, and for how many `raters` it is the likeliest."""
        likeliest = np.argmax(list(self.raters.values()), axis=1)
        raters = np.bincount(likeliest, minlength=len(self.models)).tolist()
        return {"types": len(self.models), "prior": self.prior.tolist(), "raters": raters}

    def score(
        self, *, images: Tensor, prompts: Sequence[str], shares: Sequence[float] | None = None
    ) -> Tensor:
        """Probability that a rater calls each picture good for its prompt, [B], as `RewardModel.score`.

        `shares` [k] are the probabilities of the rater's types, `raters[...]` for one who is known; by default those of any rater.
        """
        weights = torch.tensor(self.prior if shares is None else shares, dtype=torch.float32)
        return torch.stack(
            [
                w * model.score(images=images, prompts=prompts)
                for w, model in zip(weights, self.models, strict=True)
            ]
        ).sum(0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes each type's model into a folder `type-0`, `type-1`, ..., then `types.json`.

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
        """Loads what `save_pretrained` wrote.

        Raises:
            PictuneError: files are missing, broken or of two trainings, or the backbone is not the one that the types were trained on.
        """
        folder = Path(folder)
        try:
            config = RaterTypesConfig.model_validate_json((folder / TYPES_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise PictuneError(
                f"{folder / TYPES_FILE}: no saved rater types ({reason}); remove {folder} and run `make reward`"
            ) from error
        models = []
        for number, wanted in enumerate(config.types_sha256):
            models.append(RewardModel.from_pretrained(folder / f"type-{number}", backbone=backbone))
            if sha256_of(folder / f"type-{number}" / CONFIG_FILE) != wanted:
                raise PictuneError(
                    f"{folder}: type-{number} and {TYPES_FILE} are of two trainings; remove {folder} and run `make reward`"
                )
        return cls(tuple(models), np.array(config.prior), config.raters)


def fit_types(
    pooled: RewardModel,
    examples: Examples,
    parts: tuple[RatedPart, RatedPart],
    names: Sequence[str],
    config: RewardConfig,
    *,
    generator: torch.Generator,
) -> RaterTypes:
    """`config.rater_types` rewards that start from `pooled`, the reward of all raters, which stays as it is.

    `parts` teach and validate; the raters in them are numbers into `names`. `generator` (CPU) orders the labels. Kept is the epoch with the
    lowest validation loss, or the last where nothing validates.

    Raises:
        PictuneError: there are fewer raters than types.
    """
    teaching, validating = parts
    known, types = teaching.raters, config.rater_types
    if len(known) < types:
        raise PictuneError(
            f"reward.rater_types: {types} types of {len(known)} raters; set it lower, or let more people label"
        )
    models = tuple(_twin(pooled) for _ in range(types))
    objectives = [Objective(model, examples, config) for model in models]
    optimizers = [optimizer_of(objective, config) for objective in objectives]
    shares = _first_shares(pooled, examples, teaching, len(names), config)
    best_loss, best_epoch, best = np.inf, 0, (shares, [model.head.state_dict() for model in models])
    for epoch in range(1, config.epochs + 1):
        for column, objective, optimizer in zip(shares.T, objectives, optimizers, strict=True):
            counts = np.clip(column, LEAST_SHARE, None).astype(np.float32)
            labels = objective.labels(
                teaching.labels, shares=(counts[teaching.of_verdicts], counts[teaching.of_pairs])
            )
            train_epoch(objective, optimizer, labels, config.batch_size, generator)
        shares = posterior(models, shares[known].mean(0), examples, teaching, len(names))
        loss = _loss(models, shares, examples, validating)
        if loss is None or loss < best_loss:
            best_loss, best_epoch = np.inf if loss is None else loss, epoch
            best = shares, [copy.deepcopy(model.head.state_dict()) for model in models]
        elif epoch - best_epoch >= config.patience:
            break
    shares, weights = best
    for model, kept in zip(models, weights, strict=True):
        model.head.load_state_dict(kept)
    prior = shares[known].mean(0)
    return RaterTypes(models, prior, {names[i]: tuple(shares[i].tolist()) for i in known})


def posterior(
    models: Sequence[RewardModel], prior: Values, examples: Examples, part: RatedPart, n_raters: int
) -> Values:
    """The probability of each type for each rater by their labels in `part`, [n_raters, k]; the prior for those who gave none."""
    logs = np.log(np.clip(prior, LEAST_SHARE, None))[None] + np.zeros((n_raters, 1))
    for k, model in enumerate(models):
        of_verdicts, of_pairs = _log_likelihoods(model, examples, part.labels)
        logs[:, k] += np.bincount(part.of_verdicts, of_verdicts, n_raters) + np.bincount(
            part.of_pairs, of_pairs, n_raters
        )
    shares: Values = softmax(logs, axis=1)
    return shares


def _log_likelihoods(
    model: RewardModel, examples: Examples, part: FeedbackDataset
) -> tuple[Values, Values]:
    """Of each verdict [V], and of each pair [K] times its weight, if all raters were of the model's type."""
    verdicts, pairs = part.verdicts, part.pairs
    logits, margins = logits_and_margins(model, examples, part)
    single, ranked = (
        label * log_expit(each) + (1 - label) * log_expit(-each)
        for label, each in (
            (verdicts.good.astype(np.float64), logits),
            (pairs.label_0.astype(np.float64), margins),
        )
    )
    return single, ranked * pairs.weight


def _loss(
    models: Sequence[RewardModel], shares: Values, examples: Examples, part: RatedPart
) -> float | None:
    """Mean negative log-likelihood of the labels of `part`, their raters being of each type with probability `shares`; None without any."""
    raters = np.concatenate([part.of_verdicts, part.of_pairs])
    if not len(raters):
        return None
    by_type = np.stack(
        [np.concatenate(_log_likelihoods(model, examples, part.labels)) for model in models], axis=1
    )
    return float(-logsumexp(by_type, axis=1, b=shares[raters]).mean())


def _first_shares(
    pooled: RewardModel, examples: Examples, part: RatedPart, n_raters: int, config: RewardConfig
) -> Values:
    """[n_raters, k], from k-means of the mean of (label - probability) * embeddings over each rater's labels."""
    verdicts, pairs = part.labels.verdicts, part.labels.pairs

    def seen(image: Indices, prompt: Indices) -> Values:
        images, texts = (
            examples.image_embeddings[torch.from_numpy(image)],
            examples.text_embeddings[torch.from_numpy(prompt)],
        )
        features: Values = (
            torch.cat([images, images * texts * pooled.backbone.dim**0.5], dim=1)
            .double()
            .cpu()
            .numpy()
        )
        return features

    logits, margins = logits_and_margins(pooled, examples, part.labels)
    departures = (verdicts.good - expit(logits))[:, None] * seen(verdicts.image, verdicts.prompt)
    of_pairs = (pairs.label_0 - expit(margins))[:, None] * (
        seen(pairs.image_0, pairs.prompt) - seen(pairs.image_1, pairs.prompt)
    )
    raters, rows = (
        np.concatenate([part.of_verdicts, part.of_pairs]),
        np.concatenate([departures, of_pairs]),
    )
    means = np.zeros((n_raters, rows.shape[1]))
    np.add.at(means, raters, rows)
    means = means[part.raters] / np.bincount(raters)[part.raters, None]
    groups = KMeans(config.rater_types, n_init=10, random_state=config.seed).fit_predict(means)
    shares = np.full((n_raters, config.rater_types), 1 / config.rater_types)
    shares[part.raters] = np.eye(config.rater_types)[groups]
    return shares


def _twin(model: RewardModel) -> RewardModel:
    """A model with a head of its own on the same backbone."""
    twin = RewardModel(
        model.backbone, copy.deepcopy(model.head), hidden=model.hidden, members=model.members
    ).to(model.backbone.device)
    twin.temperature.copy_(model.temperature)
    twin.slip.copy_(model.slip)
    twin.labels = dict(model.labels)
    return twin

"""The posterior over types of people, from what a person picks in a session.

    b_1(k) = prior(k)
    b_{t+1}(k) ~ b_t(k) P_k(pick of turn t)
    P_k(pick = l) = softmax over the shown columns l of (sharpness * U_l^k)
    U_l^k = mean over the images of column l of the score of type k for the session's first prompt

This is the user model of PASTA (Nabati et al. 2025, arXiv 2412.10419), whose types are those of
`reward/learning/rater_types.py`. The first prompt is asked for, even where a session has an intent:
people who come with a wish of their own have none, and the policy must mean the same for both. A
turn without a pick leaves the posterior as it is, since the model has no utility for "none".
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from data.sessions import Turn
from reward.calibration import Values
from reward.model import RewardModel

SHARPNESS = 10.0
"""Factor tau of utilities, which are probabilities in (0, 1): a column that is better by 0.1 is
picked e times as often."""
REMEMBERED = 100_000
"""Columns whose utilities are kept in memory."""


class Embedder(Protocol):
    """Embeds prompts and images with the CLIP model of the rewards."""

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Return the embeddings of prompts [B, D], of unit length."""

    def images(self, image_ids: Sequence[str]) -> Tensor:
        """Return the features of images [B, F]; the first D are the embedding."""


class UserModel:
    """Utilities of columns for each type, and the posterior over types."""

    def __init__(
        self,
        types: Sequence[RewardModel],
        prior: Sequence[float],
        embedder: Embedder,
        *,
        sharpness: float = SHARPNESS,
    ) -> None:
        """Make a model of the types' rewards; a single reward is one type of prior 1."""
        self.types, self.embedder, self.sharpness = tuple(types), embedder, sharpness
        self.prior: Values = np.array(prior, dtype=np.float64)
        self._utility = lru_cache(maxsize=REMEMBERED)(self._utility_of)

    def utilities(self, prompt: str, columns: Iterable[tuple[str, ...]]) -> Values:
        """Return the utility of each column for each type, [k, L]; a column is its image ids."""
        return np.stack([self._utility(prompt, column) for column in columns], axis=1)

    @torch.no_grad()
    def _utility_of(self, prompt: str, image_ids: tuple[str, ...]) -> Values:
        features = self.embedder.images(image_ids)
        texts = self.embedder.texts([prompt]).expand(len(features), -1)
        scores = [
            one.score_features_with_std(image_features=features, text_embeddings=texts)[0]
            for one in self.types
        ]
        return torch.stack(scores).mean(1).double().cpu().numpy()

    def posterior(self, prompt: str, turns: Iterable[Turn]) -> Values:
        """Return the probability of each type [k] after these turns of a session.

        `prompt` is the session's first one.
        """
        belief = self.prior
        for turn in turns:
            if turn.answer is not None and turn.answer.chosen is not None:
                columns = [turn.candidates[number].image_ids for number in turn.shown]
                picked = turn.shown.index(turn.answer.chosen)
                belief = updated(belief, self.utilities(prompt, columns), picked, self.sharpness)
        return belief

    def utility_of_pick(self, prompt: str, turn: Turn, belief: Values) -> float:
        """Return the utility of the column that was picked, under `belief` [k]; 0 for none."""
        if turn.answer is None or turn.answer.chosen is None:
            return 0.0
        image_ids = turn.candidates[turn.answer.chosen].image_ids
        return float(belief @ self.utilities(prompt, [image_ids])[:, 0])


def updated(belief: Values, utilities: Values, picked: int, sharpness: float) -> Values:
    """Return the belief [k] after a pick, from the utilities [k, L] of the shown columns."""
    likelihoods = softmax(sharpness * utilities, axis=1)[:, picked]
    following: Values = belief * likelihoods / (belief @ likelihoods)
    return following

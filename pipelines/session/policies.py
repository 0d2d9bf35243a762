"""Opens and trains the policies that pick the slates of a run's sessions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.errors import PictuneError
from data.runs import RunFolder
from data.sessions import Session
from pipelines.run.campaign import ImageFiles
from pipelines.run.model_hashes import reward_hash
from pipelines.run.models import open_cache, open_reward_model
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.embedding import ENCODE_BATCH, embed_images, embed_prompts
from reward.files import TYPES, TYPES_FILE
from reward.learning.rater_types import RaterTypes
from reward.sessions.off_policy import OffPolicy, estimate
from reward.sessions.policy import ValuePolicy, learn_policy, logged_under
from reward.sessions.settings import PolicyName, SessionPolicyConfig
from reward.sessions.slates import Policy, RandomPolicy
from reward.sessions.states import transitions
from reward.sessions.user_model import UserModel

HELD_OUT = 0.3
"""Share of the sessions that estimate the policies, which do not learn from them."""


@dataclass(frozen=True, eq=False)
class RunEmbedder:
    """Embeds prompts and the run's images, each once."""

    files: ImageFiles
    backbone: ClipBackbone
    cache: EmbeddingCache

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Return the embeddings of prompts [B, D], of unit length."""
        return embed_prompts(prompts, self.backbone, cache=self.cache)

    def images(self, image_ids: Sequence[str]) -> Tensor:
        """Return the features of images [B, F].

        Raises:
            PictuneError: the run does not have an image.
        """
        paths = []
        for image_id in image_ids:
            if (path := self.files.get(image_id)) is None:
                raise PictuneError(
                    f"image {image_id}: shown in a session, but not in images.parquet; put it back"
                )
            paths.append(path)
        digests = [bytes.fromhex(one) for one in image_ids]
        return embed_images(
            paths, self.backbone, batch_size=ENCODE_BATCH, cache=self.cache, digests=digests
        )


def open_user_model(run: RunFolder, settings: Settings) -> UserModel:
    """Return the rater types of the run's latest reward, or its one reward as the only type.

    Raises:
        PictuneError: there is no trained reward, or it cannot be loaded.
    """
    folder = with_reward(run).reward_dir
    pooled = open_reward_model(folder, settings.run)
    embedder = RunEmbedder(ImageFiles(run), pooled.backbone, open_cache(run))
    if not (folder / TYPES / TYPES_FILE).exists():
        return UserModel([pooled], [1.0], embedder)
    types = RaterTypes.from_pretrained(folder / TYPES, backbone=pooled.backbone)
    return UserModel(types.models, types.prior.tolist(), embedder)


def open_policy(name: PolicyName, run: RunFolder, settings: Settings) -> Policy:
    """Return the policy of this name: random, or one that `make session-policy` has trained.

    Raises:
        PictuneError: the policy was not trained, or with another reward than the run's.
    """
    if name == "random":
        return RandomPolicy()
    digest = reward_hash(with_reward(run).reward_dir)
    user = open_user_model(run, settings)
    return ValuePolicy.load(run.session_policy_dir, name, user, reward=digest)


def learn_policies(
    sessions: Sequence[Session], user: UserModel, config: SessionPolicyConfig, *, seed: int
) -> tuple[dict[str, Policy], dict[str, OffPolicy]]:
    """Return all policies, trained on a part of the sessions, and their estimates on the rest."""
    shuffled = random.Random(seed).sample(sessions, len(sessions))
    count = round(HELD_OUT * len(sessions))
    held_out, teaching = shuffled[:count], transitions(user, shuffled[count:])
    greedy, value = (
        learn_policy(kind, teaching, user, config, generator=torch.Generator().manual_seed(seed))
        for kind in ("greedy", "value")
    )
    policies: dict[str, Policy] = {"random": RandomPolicy(), "greedy": greedy, "value": value}
    rng = np.random.default_rng(seed)
    logged = logged_under(policies, value, held_out)
    estimates = {
        name: estimate(one, discount=config.discount, rng=rng) for name, one in logged.items()
    }
    return policies, estimates

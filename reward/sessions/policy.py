"""Policies that value candidates by a learned network: greedy, and by implicit Q-learning.

Both learn from the same sessions. The greedy one has discount 0: the reward of the turn alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeFloat, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.sessions import Candidate, Session
from data.weights import check_finite
from reward.sessions.implicit_q import Transitions, ValueNetwork, train_values
from reward.sessions.off_policy import Logged
from reward.sessions.settings import Learned, SessionPolicyConfig
from reward.sessions.slates import Policy, mean_slate_value, slate_chance
from reward.sessions.states import answered, candidates_of, rewards_of, state_of
from reward.sessions.user_model import UserModel


class PolicyConfig(BaseModel, frozen=True, extra="forbid"):
    """Content of the JSON file of a saved policy."""

    kind: Learned
    temperature: NonNegativeFloat
    """Temperature of `draw_slate`."""
    weights_sha256: str
    """SHA-256 of the weights' file, so that files of two trainings are not mixed."""
    reward: str
    """Hash of the reward models whose types the policy knows."""


@dataclass(frozen=True, eq=False)
class ValuePolicy:
    """Values candidates by a network, for `draw_slate`."""

    kind: Learned
    network: ValueNetwork
    user: UserModel
    temperature: float
    version: str = "new"
    """First digits of the hash of the saved weights."""

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.kind} {self.version}"

    @torch.no_grad()
    def values(
        self, session: Session, prompt: str, candidates: Sequence[Candidate]
    ) -> Sequence[float]:
        """Return the network's value of each candidate."""
        state = state_of(self.user, session, prompt)
        found: list[float] = self.network(state, candidates_of(self.user, candidates)).tolist()
        return found

    def save(self, folder: Path, *, reward: str) -> None:
        """Write `<kind>.safetensors`, then `<kind>.json`; `reward` is the hash of its rewards."""
        weights = folder / f"{self.kind}.safetensors"
        with write_atomically(weights) as temporary:
            save_file(self.network.state_dict(), temporary)
        config = PolicyConfig(
            kind=self.kind,
            temperature=self.temperature,
            weights_sha256=sha256_of(weights),
            reward=reward,
        )
        write_json(folder / f"{self.kind}.json", config.model_dump())

    @classmethod
    def load(cls, folder: Path, kind: Learned, user: UserModel, *, reward: str) -> Self:
        """Read a saved policy.

        Raises:
            PictuneError: files are missing, broken, of two trainings, or of another reward.
        """
        weights, again = folder / f"{kind}.safetensors", "run `make session-policy`"
        try:
            config = PolicyConfig.model_validate_json((folder / f"{kind}.json").read_bytes())
            saved = load_file(weights)
        except (OSError, ValidationError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise PictuneError(f"{folder}: no policy {kind!r} ({reason}); {again}") from error
        if (version := sha256_of(weights)) != config.weights_sha256:
            raise PictuneError(f"{weights}: not of the training of {kind}.json; {again}")
        if config.reward != reward:
            raise PictuneError(f"{folder}: learned with another reward than the run's; {again}")
        check_finite(saved, str(weights))
        inputs = saved["layers.0.weight"].shape[1]
        network = ValueNetwork(inputs, generator=torch.Generator())
        network.load_state_dict(saved)
        return cls(kind, network, user, config.temperature, version[:8])


def learn_policy(
    kind: Learned,
    turns: Transitions,
    user: UserModel,
    config: SessionPolicyConfig,
    *,
    generator: torch.Generator,
) -> ValuePolicy:
    """Return a policy learned from the turns; `generator` (CPU) draws weights and batches."""
    discount = config.discount if kind == "value" else 0.0
    network = train_values(turns, discount=discount, generator=generator)
    with torch.no_grad():
        values = network(turns.states, turns.slates)
    means = (values * turns.shown).sum(1, keepdim=True) / turns.shown.sum(1, keepdim=True)
    spread = ((values - means).square() * turns.shown).sum() / turns.shown.sum()
    return ValuePolicy(kind, network, user, config.temperature * float(spread.sqrt()))


def logged_under(
    policies: Mapping[str, Policy], critic: ValuePolicy, sessions: Sequence[Session]
) -> dict[str, Logged]:
    """Return the sessions as the input of off-policy estimates of each policy.

    `critic` is the model of values that the doubly robust estimate corrects.
    """
    turns = [answered(session) for session in sessions]
    shape = len(sessions), max(map(len, turns))
    rewards, slate_values = np.zeros((2, *shape))
    ratios = {name: np.ones(shape) for name in policies}
    state_values = {name: np.zeros(shape) for name in policies}
    for i, session in enumerate(sessions):
        rewards[i, : len(turns[i])] = rewards_of(critic.user, session)
        for t, turn in enumerate(turns[i]):
            path, candidates = session.path_to(turn.after), turn.candidates
            of = critic.values(path, turn.prompt, candidates)
            slate_values[i, t] = np.mean([of[number] for number in turn.shown])
            stored = np.prod([one.chance for one in candidates if one.chance is not None])
            for name, policy in policies.items():
                is_critic, warm = policy is critic, policy.temperature
                values = of if is_critic else policy.values(path, turn.prompt, candidates)
                ratios[name][i, t] = slate_chance(candidates, values, temperature=warm) / stored
                state_values[name][i, t] = mean_slate_value(
                    candidates, values, of, temperature=warm, columns=len(turn.shown)
                )
    return {
        name: Logged(ratios[name], rewards, slate_values, state_values[name]) for name in policies
    }

"""Implicit Q-learning of the value of slates (Kostrikov et al. 2021, arXiv 2110.06169).

    q(h, slate) = mean of f(h, candidate) over the shown candidates (PASTA, arXiv 2412.10419)
    L_V = E |expectile - 1(u < 0)| u^2,   u = f_target(h, picked) - V(h)
    L_f = E (r + discount * V(h') - f(h, picked))^2;   V(h') is 0 after the last turn

A sample is the candidate that was picked, on which reward and next state depend (SlateQ, Ie et al.
2019, arXiv 1905.12767); where nothing was picked, the mean of all that were shown. With discount 0,
f learns the reward of the turn alone.

Differs from the paper in: 1. no policy is learned, since the best slate of a finite set is found by
sorting; 2. f is one network, not the smaller of two.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

HIDDEN = 128
"""Width of the hidden layer."""
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
BATCH = 256
"""Turns of an update."""
FOLLOW = 0.01
"""Share by which the target network moves to f in an update."""


@dataclass(frozen=True, eq=False)
class Transitions:
    """Answered turns of sessions, as tensors."""

    states: Tensor
    """[N, S]"""
    slates: Tensor
    """[N, L, C], the shown candidates; 0 where there are fewer than L."""
    shown: Tensor
    """[N, L], 1 for a candidate and 0 for none."""
    picked: Tensor
    """[N, L], 1 for the candidate that was picked; without a pick, 1 for all that were shown."""
    rewards: Tensor
    """[N]"""
    next_states: Tensor
    """[N, S], the state of the next turn; not read where the session ends."""
    goes_on: Tensor
    """[N], 1 where there is a next turn and 0 where there is none."""

    def __len__(self) -> int:
        return len(self.rewards)

    def at(self, rows: Tensor) -> "Transitions":
        """Return the turns of these rows."""
        return Transitions(**{name: column[rows] for name, column in vars(self).items()})


class ValueNetwork(nn.Module):
    """f(state, candidate): two layers with ReLU between them."""

    def __init__(self, inputs: int, *, generator: torch.Generator) -> None:
        """Make an untrained network of S + C inputs; `generator` (CPU) draws its weights."""
        super().__init__()
        self.layers = _two_layers(inputs, generator)

    def forward(self, states: Tensor, candidates: Tensor) -> Tensor:
        """Return f [..., L] of states [..., S] and candidates [..., L, C]."""
        repeated = states[..., None, :].expand(*candidates.shape[:-1], -1)
        found: Tensor = self.layers(torch.cat([repeated, candidates], dim=-1))
        return found.squeeze(-1)

    def of_picks(self, turns: Transitions) -> Tensor:
        """Return f of the picked candidates [N], the mean of those shown where there is none."""
        values: Tensor = self(turns.states, turns.slates) * turns.picked
        return values.sum(1) / turns.picked.sum(1)


def _two_layers(inputs: int, generator: torch.Generator) -> nn.Sequential:
    first, last = nn.Linear(inputs, HIDDEN), nn.Linear(HIDDEN, 1)
    for layer in (first, last):
        bound = float(layer.in_features) ** -0.5
        for weight in layer.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=generator)
    return nn.Sequential(first, nn.ReLU(), last)


def expectile_loss(advantage: Tensor, expectile: float) -> Tensor:
    """Return |expectile - 1(u < 0)| u^2 of advantages u, the mean over all."""
    weight = torch.where(advantage < 0, 1 - expectile, expectile)
    return (weight * advantage.square()).mean()


def train_values(
    turns: Transitions,
    *,
    discount: float,
    expectile: float = 0.7,
    updates: int = 1000,
    generator: torch.Generator,
) -> ValueNetwork:
    """Return f, learned from the turns; `generator` (CPU) draws weights and batches."""
    inputs = turns.states.shape[1]
    network = ValueNetwork(inputs + turns.slates.shape[2], generator=generator)
    of_state = _two_layers(inputs, generator)
    target = copy.deepcopy(network)
    learned: list[Any] = [*network.parameters(), *of_state.parameters()]
    optimizer = torch.optim.AdamW(learned, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(updates):
        batch = turns.at(torch.randint(len(turns), (BATCH,), generator=generator))
        with torch.no_grad():
            wanted = target.of_picks(batch)
            following = batch.goes_on * of_state(batch.next_states).squeeze(-1)
        value_loss = expectile_loss(wanted - of_state(batch.states).squeeze(-1), expectile)
        error = batch.rewards + discount * following - network.of_picks(batch)
        optimizer.zero_grad()
        (value_loss + error.square().mean()).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, FOLLOW)
    return network

"""The value function of DPOK: what reward an unfinished image will get (Fan et al. 2023, arXiv 2305.16381, section 4.4)."""

from dataclasses import dataclass

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from finetune.rollout import Rollout, Transitions

_GRID = 4
_TIME_WIDTH = 32


class ValueFunction(nn.Module):
    """A small network on the noisy latents, the prompt and the timestep; says 0 until it is trained.

    It sees the latents averaged to a 4x4 grid: enough for place and colour, too little to recognise single samples, and of the same
    size for every resolution (the authors' reads all 16384 numbers of a 512-pixel image).
    """

    def __init__(self, latent_channels: int, text_width: int, *, hidden: int = 128, generator: torch.Generator) -> None:
        """Args: channels of the latents; width of the prompt embeddings; hidden units; source of the starting weights."""
        super().__init__()
        width = latent_channels * _GRID * _GRID + text_width + _TIME_WIDTH
        first, second, last = nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def forward(self, latents: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        """Values [B] of noisy latents [B, C, h, w], prompt embeddings [B, L, D] and timesteps [B]."""
        seen = functional.adaptive_avg_pool2d(latents.float(), _GRID).flatten(1)
        time = get_timestep_embedding(timesteps, _TIME_WIDTH)
        value: Tensor = self.layers(torch.cat([seen, text.float().mean(1), time], dim=1))
        return value.squeeze(1)


@dataclass(frozen=True)
class Critic:
    """The value function and how it learns."""

    network: ValueFunction
    optimizer: torch.optim.Optimizer
    steps: int
    """Steps of the optimizer per iteration."""
    batch: int
    """Transitions in each of them."""

    @torch.no_grad()
    def predict(self, transitions: Transitions) -> Tensor:
        """Values [M] of the states that the transitions leave."""
        value: Tensor = self.network(transitions.latents, transitions.cond, transitions.timesteps)
        return value

    def fit(self, rollout: Rollout, stochastic_steps: int, generator: torch.Generator) -> None:
        """Learns the normalised rewards from random noisy latents of their trajectories, by mean squared error."""
        for _ in range(self.steps):
            sample = torch.randint(len(rollout.prompts), (self.batch,), generator=generator)
            step = torch.randint(stochastic_steps, (self.batch,), generator=generator)
            some = rollout.transitions(torch.stack([sample, step], dim=1).to(rollout.rewards.device))
            self.optimizer.zero_grad()
            functional.mse_loss(self.network(some.latents, some.cond, some.timesteps), some.advantages).backward()
            self.optimizer.step()

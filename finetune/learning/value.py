"""The value function of DPOK: it predicts the reward of an unfinished image.

See Fan et al. 2023, arXiv 2305.16381, section 4.4.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from finetune.learning.rollout import Rollout

_GRID = 4
_TIME_WIDTH = 32


class ValueFunction(nn.Module):
    """A small network of noisy latents, prompt and timestep; its output is 0 until it is trained.

    Its input is the latents averaged to a 4x4 grid: enough for place and color, too little to
    memorize samples, and of the same size for every resolution. The authors' network reads all
    16384 numbers of a 512-pixel image.
    """

    def __init__(
        self,
        latent_channels: int,
        text_width: int,
        *,
        hidden: int = 128,
        generator: torch.Generator,
    ) -> None:
        """Create the layers.

        Args:
            latent_channels: channels of the latents.
            text_width: width D of the prompt embeddings.
            hidden: units of the hidden layers.
            generator: source of the initial weights.
        """
        super().__init__()
        width = latent_channels * _GRID * _GRID + text_width + _TIME_WIDTH
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, 1)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def forward(self, latents: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        """Return values [B] of noisy latents [B, C, h, w], prompts [B, L, D] and timesteps [B]."""
        seen = functional.adaptive_avg_pool2d(latents.float(), _GRID).flatten(1)
        time = get_timestep_embedding(timesteps, _TIME_WIDTH)
        value: Tensor = self.layers(torch.cat([seen, text.float().mean(1), time], dim=1))
        return value.squeeze(1)


@dataclass(frozen=True)
class Critic:
    """The value function and its training, in units of rewards normalized per prompt."""

    network: ValueFunction
    optimizer: torch.optim.Optimizer
    stochastic_steps: int
    steps: int = 5
    """Optimizer steps per iteration, as in DPOK's paper."""
    batch: int = 256
    """Transitions per optimizer step, as in DPOK's paper."""

    @torch.no_grad()
    def values(self, rollout: Rollout) -> Tensor:
        """Return the values [N, S] of the states before each stochastic step."""
        count = len(rollout.prompts) * self.stochastic_steps
        at = torch.arange(count, device=rollout.rewards.device)
        values = self._at(rollout, at // self.stochastic_steps, at % self.stochastic_steps)
        return values.view(-1, self.stochastic_steps)

    def fit(self, rollout: Rollout, generator: torch.Generator) -> None:
        """Fit the returns from random noisy latents of the trajectories, by mean squared error."""
        device, samples = rollout.rewards.device, len(rollout.prompts)
        for _ in range(self.steps):
            sample = torch.randint(samples, (self.batch,), generator=generator)
            step = torch.randint(self.stochastic_steps, (self.batch,), generator=generator)
            sample, step = torch.stack([sample, step]).to(device, non_blocking=True)
            values = self._at(rollout, sample, step)
            self.optimizer.zero_grad()
            functional.mse_loss(values, rollout.returns[sample]).backward()
            self.optimizer.step()

    def _at(self, rollout: Rollout, sample: Tensor, step: Tensor) -> Tensor:
        some = rollout.transitions(torch.stack([sample, step], dim=1))
        value: Tensor = self.network(some.latents, some.cond, some.timesteps)
        return value

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the state of the optimizer."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

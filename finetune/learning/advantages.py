"""Advantages: rewards relative to those that each prompt usually gets.

The statistics per prompt are those of DDPO (Black et al. 2023, arXiv 2305.13301).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class PromptStatistics:
    """The last rewards of each prompt.

    Easy and hard prompts get rewards on different levels. Compared with their own kind, all of them
    teach equally much.
    """

    def __init__(self, *, window: int, std_floor: float) -> None:
        """Start without rewards.

        Args:
            window: number of rewards per prompt that are remembered.
            std_floor: least standard deviation to divide by, in the reward's units.
        """
        self.window, self.std_floor = window, std_floor
        self._rewards: dict[str, Tensor] = {}

    def normalize(self, prompts: Sequence[str], rewards: Tensor) -> Tensor:
        """Add rewards [N] and return (reward - mean) / std [N] by the statistics of each prompt.

        The statistics include the new rewards.
        """
        advantages = torch.empty_like(rewards)
        for prompt in dict.fromkeys(prompts):
            mine = torch.tensor([other == prompt for other in prompts], device=rewards.device)
            seen = torch.cat(
                [self._rewards.get(prompt, rewards.new_empty(0)).to(rewards.device), rewards[mine]]
            )
            seen = seen[-max(self.window, int(mine.sum())) :]
            self._rewards[prompt] = seen
            std = seen.std(correction=0).clamp(min=self.std_floor)
            advantages[mine] = (rewards[mine] - seen.mean()) / std
        return advantages

    def state_dict(self) -> dict[str, Tensor]:
        """Return the remembered rewards by prompt."""
        return dict(self._rewards)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._rewards = dict(state)

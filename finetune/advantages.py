"""Rewards relative to what each prompt usually gets (per-prompt statistics of DDPO, Black et al. 2023, arXiv 2305.13301)."""

from collections.abc import Sequence

import torch
from torch import Tensor


class PromptStatistics:
    """The last rewards of each prompt.

    Easy and hard prompts get rewards on different levels; compared with their own kind, all of them teach equally much.
    """

    def __init__(self, *, window: int, std_floor: float) -> None:
        """Args: how many rewards per prompt are remembered; the least standard deviation to divide by, in the reward's units."""
        self.window, self.std_floor = window, std_floor
        self._rewards: dict[str, Tensor] = {}

    def normalise(self, prompts: Sequence[str], rewards: Tensor) -> Tensor:
        """Takes in rewards [N] and gives (reward - mean) / std [N] by the statistics of each one's prompt, the new ones included."""
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
        """The remembered rewards by prompt."""
        return dict(self._rewards)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state_dict` gave."""
        self._rewards = dict(state)

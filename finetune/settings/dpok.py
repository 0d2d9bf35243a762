"""Settings of `finetune/methods/dpok.py`."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from finetune.settings.policy_gradient import PolicyGradientConfig, Surrogate


class DPOKConfig(PolicyGradientConfig, frozen=True, extra="forbid"):
    """Settings of DPOK."""

    kl_weight: NonNegativeFloat = 0.02
    """Weight of the KL to the pretrained model; 0 trains on the reward alone. Rewards have unit
    spread. Paper: 0.01 to rewards times 10."""
    kl: Literal["gaussian", "noise_error"] = "gaussian"
    """Distance to the pretrained model, a mean over dimensions: the KL of each step, or the squared
    difference of the predicted noise, as in the code of DPOK's authors."""
    surrogate: Surrogate = "ppo"
    """Side on which ratios are clipped: "ppo" clips the improving side, "hard_clamp" both sides, as
    in the code of DPOK's authors."""
    baseline: Literal["value", "prompt_mean"] = "value"
    """Baseline of a reward: the prompt's mean plus the learned value function, or the mean
    alone."""
    value_learning_rate: PositiveFloat = 1e-3
    """Learning rate of the value function (AdamW). Paper: 1e-4."""

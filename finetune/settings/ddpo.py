"""Settings of `finetune/methods/ddpo.py`."""

from finetune.settings.policy_gradient import PolicyGradientConfig


class DDPOConfig(PolicyGradientConfig, frozen=True, extra="forbid"):
    """Settings of DDPO.

    The paper has 256 images a round, 4 updates of 64, 50 steps, guidance 5, clip range 1e-4,
    learning rate 3e-4 for LoRA.
    """

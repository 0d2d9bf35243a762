"""DDPO: plain policy gradient on denoising steps (Black et al. 2023, arXiv 2305.13301).

    loss = -E[min(rho * A, clip(rho, 1 - c, 1 + c) * A)],   A = (r(x_0, z) - mean_z) / std_z

The baseline of this field. Rewards are normalized by the recent mean and standard deviation of
their prompt. There is neither a KL penalty nor a value function, so only the validation prompts and
the guards show reward exploitation. `kl` is not logged, because the reference model is not run; the
evaluation measures the KL.

Differs from the paper and its code in:
1. LoRA with AdamW as in `finetune.methods.dpok`, not all weights.
2. A prompt's statistics include the current rewards when they normalize them, even if these are
   few.
3. The standard deviation is at least `std_floor`. The authors' code adds 1e-6 instead, which
   amplifies noise for prompts with nearly equal rewards.
4. Only the first steps of a trajectory are stochastic and trained on, transitions of different
   samples and timesteps share a batch, and log-probabilities are means over the dimensions:
   deviations 6 and 8 of `finetune.methods.dpok`, with which it shares `policy_gradient`.
"""

from torch import Tensor

from finetune.learning.rollout import Step
from finetune.methods.policy_gradient import PolicyGradient, policy_loss
from finetune.settings.ddpo import DDPOConfig


def loss(step: Step, advantages: Tensor, config: DDPOConfig) -> Tensor:
    """Return the clipped surrogate loss, without a KL term."""
    return policy_loss(step.log_probs, step.old_log_probs, advantages, config.clip_range)


METHOD = PolicyGradient(loss).method(
    "Black et al. 2023, arXiv 2305.13301",
    "draws new images in every round and follows the reward",
    DDPOConfig,
    color="#5b8c5a",
)

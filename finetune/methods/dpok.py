"""DPOK: policy gradient with a KL penalty to the pretrained model (Fan et al. 2023).

    loss = -E[min(rho * A, clip(rho, 1 - c, 1 + c) * A)]
           + kl_weight * E[KL(p_theta(x_{t-1} | x_t, z) || p_pretrained(x_{t-1} | x_t, z))]
    rho = p_theta(x_{t-1} | x_t, z) / p_old(x_{t-1} | x_t, z)
    A = (r(x_0, z) - mean_z) / std_z - V(x_t, z, t)

The paper is arXiv 2305.16381. Log-probabilities and the KL in the loss are means over the latent's
dimensions, so one clip range and one KL weight fit every image size. Classifier-free guidance is on
in the rollout, in the policy's and in the reference's predictions.

Differs from the paper and its code in:
1. The surrogate has PPO's min(). The authors' code only clamps the ratio, which also stops
   gradients that would move the ratio back into the range; `surrogate = "hard_clamp"` does the
   same.
2. The KL is the exact Gaussian KL, ||mean - mean_ref||^2 / (2 std^2); The authors' code uses the
   squared difference of the predicted noise, whose ratio to the KL varies 77-fold over Stable
   Diffusion's 50 steps; `kl = "noise_error"` does the same.
3. Rewards are normalized per prompt before the value function sees them; it predicts the normalized
   rewards, and starts at zero.
4. Advantages come from the value function of earlier iterations, so the baseline does not depend on
   the action's outcome.
5. Every iteration trains on its own images only, each transition at most once. The authors' buffer
   keeps 1000 transitions of older policies and samples from them.
6. Transitions of different samples and timesteps share a batch.
7. AdamW has beta2 = 0.99 in place of 0.999, for runs of some dozens of steps.
8. Only the first steps of a trajectory are stochastic and trained on; the later steps are
   deterministic and count as a part of the decoder (as in MixGRPO, Li et al. 2025, arXiv
   2507.21802).
"""

import torch
from torch import Tensor

from finetune.learning.method import Training
from finetune.learning.rollout import Step
from finetune.learning.value import Critic, ValueFunction
from finetune.methods.policy_gradient import PolicyGradient, policy_loss
from finetune.model.sampling import gaussian_kl
from finetune.settings.dpok import DPOKConfig


def loss(step: Step, advantages: Tensor, config: DPOKConfig) -> Tensor:
    """Return the clipped surrogate loss plus the weighted distance to the pretrained model."""
    policy, reference = step.policy, step.reference
    assert reference is not None
    surrogate = policy_loss(
        step.log_probs,
        step.old_log_probs,
        advantages,
        config.clip_range,
        surrogate=config.surrogate,
    )
    if config.kl == "gaussian":
        kl = gaussian_kl(policy.mean, reference.mean, policy.std, reduction="mean").mean()
        return surrogate + config.kl_weight * kl
    noise_error = step.noise_per_output * (policy.output - reference.output)
    return surrogate + config.kl_weight * noise_error.square().mean()


def critic(training: Training[DPOKConfig]) -> Critic | None:
    """Return the untrained value function; None if it is not the baseline."""
    config, model = training.config, training.model
    if config.baseline == "prompt_mean":
        return None
    text_width = model.encode_prompts([""]).shape[-1]
    network = ValueFunction(model.latent_shape[0], text_width, generator=training.generator).to(
        model.device
    )
    optimizer = torch.optim.AdamW(network.parameters(), config.value_learning_rate)
    stochastic_steps = training.sampler.stochastic_steps
    return Critic(network, optimizer, stochastic_steps)


# The loss needs the reference; with KL weight 0 it is only needed to log the KL.
METHOD = PolicyGradient(loss, needs_reference=True, critic=critic).method(
    "Fan et al. 2023, arXiv 2305.16381",
    "draws new images in every round and follows the reward, held back by its distance to the base",
    DPOKConfig,
    color="#d1495b",
)

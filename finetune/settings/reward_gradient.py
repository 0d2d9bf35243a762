"""Settings of `finetune/methods/reward_gradient.py`."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from finetune.settings.method import DrawsImages
from finetune.settings.sampler import SamplerOverrides
from finetune.settings.validation import Measure, ValidationConfig


class RewardGradientSampler(SamplerOverrides, frozen=True, extra="forbid"):
    """Settings in which the sampler differs from the run's [sampler]."""

    eta: float | None = Field(default=0.0, ge=0, le=1)
    """Noise of each stochastic step. Any will do; 0 is deterministic, as validation is. AlignProp:
    1."""


class RewardGradientValidation(ValidationConfig, frozen=True, extra="forbid"):
    """Settings of validation, with the guards on."""

    stop_on: tuple[Measure, ...] = ("saturation", "sharpness", "diversity", "disagreement")
    """Measures that end the training when they leave the bounds in `finetune.validation.limits`."""


class RewardGradientConfig(DrawsImages, frozen=True, extra="forbid"):
    """Settings of the reward gradients.

    Published ones stand beside ours, which are for the embedded model of 5 million parameters.
    """

    iterations: PositiveInt = 20
    """Rounds of drawing and one optimizer step. DRaFT in NeMo-Aligner: 50."""
    prompts_per_iteration: PositiveInt = 4
    """Different prompts drawn for in one iteration; when there are more, spread evenly over them
    and moving on."""
    images_per_prompt: PositiveInt = 4
    """Images of each prompt in one iteration. DRaFT in NeMo-Aligner: 4 or 16 in all."""
    micro_batch: PositiveInt = 16
    """Rows of one network call (twice that with guidance), whose activations of all steps with
    gradient are kept at a time; bounds the memory, and changes nothing except rounding."""
    learning_rate: PositiveFloat = 4e-3
    """AdamW's, for LoRA. AlignProp: 1e-3; DRaFT in NeMo-Aligner: 1e-4."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm."""
    decay: bool = True
    """Whether the learning rate falls linearly to 0 over the iterations. Papers: no."""
    sampler: RewardGradientSampler = RewardGradientSampler()
    """Settings in which the sampler of the training images differs from the run's [sampler]."""
    truncation: Literal["fixed", "random", "one_step"] = "fixed"
    """Part of the chain that has a gradient: the last `steps_back` steps, DRaFT's; from 1 to so
    many, AlignProp's; or one of them, at which the image is finished at once, ReFL's."""
    steps_back: PositiveInt = 1
    """K, at most the sampler's steps. More reach what is in the image, and cost the memory of so
    many network calls. DRaFT: 1; AlignProp: up to 50 of 50; ReFL: 10 of 40."""
    margin: float | None = None
    """Reward above which an image counts as good enough and teaches no more, in the reward's units;
    omitted, there is none. ReFL: 2, of ImageReward."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the pull to the base: of the mean squared difference to the base's predictions, in
    the reward's units. 0 switches it off and saves 4 network passes an image. Papers: none."""
    pretraining_weight: NonNegativeFloat = 0.0
    """Weight of the denoising error on 64 images that the base drew before the first step, which
    are spread evenly over the prompts and never scored, in the reward's units; 0 draws none."""
    validation: RewardGradientValidation = RewardGradientValidation()
    """Validation, which chooses the best weights and ends the training early."""

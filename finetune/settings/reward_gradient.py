"""Settings of `finetune/methods/reward_gradient.py`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from typing_extensions import override

from finetune.settings.method import DrawsImages
from finetune.settings.sampler import Sampler, SamplerOverrides
from finetune.settings.validation import Measure, ValidationConfig


class RewardGradientSampler(SamplerOverrides, frozen=True, extra="forbid"):
    """Sampler settings of reward gradients that override the run's [sampler]."""

    eta: float | None = Field(default=0.0, ge=0, le=1)
    """Noise of each stochastic step. Any value works; 0 is deterministic, as in validation.
    AlignProp: 1."""


class RewardGradientValidation(ValidationConfig, frozen=True, extra="forbid"):
    """Validation settings with the guards on."""

    stop_on: tuple[Measure, ...] = ("saturation", "sharpness", "diversity", "disagreement")
    """Measures that end the training when they leave the bounds in `finetune.validation.limits`."""


class RewardGradientConfig(DrawsImages, frozen=True, extra="forbid"):
    """Settings of the reward gradients.

    The defaults are for the embedded model of 5 million parameters, beside published values.
    """

    takes_regions: ClassVar[bool] = True
    iterations: PositiveInt = 20
    """Rounds of drawing and one optimizer step. DRaFT in NeMo-Aligner: 50."""
    prompts_per_iteration: PositiveInt = 4
    """Number of distinct prompts per iteration; if there are more prompts, they are taken in
    turn."""
    images_per_prompt: PositiveInt = 4
    """Images of each prompt per iteration. DRaFT in NeMo-Aligner: 4 or 16 images in all."""
    micro_batch: PositiveInt = 16
    """Rows of one network call (doubled with guidance). The activations of all steps with gradient
    are kept for these rows. Limits the memory, and changes results only by rounding."""
    learning_rate: PositiveFloat = 4e-3
    """Learning rate of AdamW, for LoRA. AlignProp: 1e-3; DRaFT in NeMo-Aligner: 1e-4."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down."""
    decay: bool = True
    """Whether the learning rate falls linearly to 0 over the iterations. Papers: no."""
    sampler: RewardGradientSampler = RewardGradientSampler()
    """Sampler settings for training images that override the run's [sampler]."""
    truncation: Literal["fixed", "random", "one_step"] = "fixed"
    """Part of the denoising chain with a gradient. "fixed" is the last `steps_back` steps (DRaFT),
    "random" a random number of them (AlignProp). "one_step" ends the chain at one of these steps,
    drawn at random, with its predicted clean image (ReFL)."""
    steps_back: PositiveInt = 1
    """K, at most the sampler's steps. More steps train the content of the image, and need the
    memory of K network calls. DRaFT: 1; AlignProp: up to 50 of 50; ReFL: 10 of 40."""
    margin: float | None = None
    """Reward above which an image has no gradient, in the reward's units; omitted, there is no
    limit. ReFL: 2, of ImageReward."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the pull to the base (the mean squared difference to the base's predictions), in
    the reward's units. 0 switches it off and saves 4 network passes per image. Papers: none."""
    pretraining_weight: NonNegativeFloat = 0.0
    """Weight of the denoising error on 64 pretraining images, in the reward's units. The base draws
    them before the first step, evenly over the prompts; they are never scored. 0 draws no such
    images."""
    validation: RewardGradientValidation = RewardGradientValidation()
    """Validation, which chooses the best weights and ends the training early."""

    @override
    def trained_share(self, sampler: Sampler) -> float:
        return 1.0  # the last steps are trained

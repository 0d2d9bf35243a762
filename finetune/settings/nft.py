"""Settings of `finetune/methods/nft.py`."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from finetune.settings.method import DrawsImages
from finetune.settings.sampler import SamplerOverrides


class NFTSampler(SamplerOverrides, frozen=True, extra="forbid"):
    """Settings in which the sampler differs from the run's [sampler]."""

    eta: float | None = Field(default=0.0, ge=0, le=1)
    """Noise of each stochastic step. Any will do; 0 is deterministic, as validation is and as in
    the paper."""


class NFTConfig(DrawsImages, frozen=True, extra="forbid"):
    """Settings of DiffusionNFT.

    The published ones, for Stable Diffusion 3.5, stand beside ours, which are for the embedded
    model of 5 million parameters.
    """

    iterations: PositiveInt = 20
    """Rounds of drawing and training. Paper: up to about 1000."""
    prompts_per_iteration: PositiveInt = 4
    """Different prompts drawn for in one iteration; when there are more, spread evenly over them
    and moving on. Paper: 48."""
    images_per_prompt: int = Field(default=16, ge=2)
    """Images of each prompt in one iteration, which are compared with each other. Paper: 24."""
    noise_levels: PositiveInt = 6
    """Timesteps at which each image is trained on, one from each of so many equal parts of the
    schedule. Paper: 10."""
    updates: PositiveInt = 12
    """Optimizer steps per iteration, which share its pairs of image and timestep. Paper: 1 or 2."""
    micro_batch: PositiveInt = 32
    """Rows of one network call (twice that in drawing with guidance); bounds the memory, and
    changes nothing except rounding."""
    learning_rate: PositiveFloat = 4e-3
    """AdamW's, for LoRA. Paper: 3e-4."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value. Paper: none."""
    decay: bool = True
    """Whether the learning rate falls linearly to 0 over the iterations. Paper: no."""
    sampler: NFTSampler = NFTSampler()
    """Settings in which the sampler of the training images differs from the run's [sampler]. Paper:
    10 steps, guidance 1."""
    advantage_clip: PositiveFloat = 1.0
    """Standard deviations from its prompt's mean at which an image counts as wholly good or bad.
    Paper: 5."""
    std_floor: PositiveFloat = 0.05
    """Least standard deviation to divide rewards by, in the reward's units; keeps settled prompts
    from amplifying noise."""
    beta: PositiveFloat = 0.3
    """Strength of the pull to the old policy; smaller is faster and less stable. Paper: 1, or
    0.1."""
    old_decay: float = Field(default=0.0, ge=0, lt=1)
    """Share of itself that the old policy, which draws the images, keeps after an iteration; 0
    makes it the last policy. Paper: rises from 0 to 0.5 by 0.001 an iteration."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the pull to the base, in the units of `beta`: of the mean squared difference to the
    base's predictions. 0 switches it off and saves a network pass. Paper: 2e-5, if its loss is not
    multiplied by 5."""

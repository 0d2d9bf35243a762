"""Stock pipelines with the sampler that Pictune draws with."""

from typing import Any

from diffusers import DDIMScheduler


def ddim(pipeline: Any) -> DDIMScheduler:
    """Return the pipeline's noise schedule as DDIM that clips nothing, as latents need it."""
    config = pipeline.scheduler.config
    scheduler: DDIMScheduler = DDIMScheduler.from_config(
        config, clip_sample=False, thresholding=False
    )
    return scheduler

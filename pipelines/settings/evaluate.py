"""Settings of the evaluation."""

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt


class EvaluateConfig(BaseModel, frozen=True, extra="forbid"):
    """Images of the evaluation, and how often they are drawn."""

    images_per_prompt: PositiveInt = 24
    """Images of each training prompt, for every model and sampler."""
    most_prompts: PositiveInt = 16
    """Training prompts that are evaluated, from every category; a line says so where there are
    more."""
    held_out_prompts: dict[str, tuple[str, ...]] = {}
    """Held-out prompts by category, which nothing is trained on and only the evaluation draws,
    beside the held-out prompts of `run.prompts_file`."""
    held_out_per_family: NonNegativeInt = 0
    """Held-out prompts that are made for each family of the embedded world: they ask for what its
    base never saw and no training prompt asks for. None where its judge knows no image."""
    images_per_held_out: PositiveInt = 4
    """Images of each held-out prompt."""
    best_of: PositiveInt = 4
    """Candidates of the base from which the reward picks one, the baseline without training; 1
    omits it."""
    etas: tuple[float, ...] = Field(default=(0.0, 1.0), min_length=1)
    """Samplers: 0 is deterministic DDIM, which users run, 1 ancestral sampling, whose first steps
    DPOK trains."""
    kl_images: PositiveInt = 16
    """Chains of each tuned model for its KL to the base."""
    encoder: str | None = None
    """Folder, or hub name, of the CLIP whose embeddings tell diversity and distance to the base;
    omitted, it is the reward's own."""

"""The side network learns grad log h_t, where it is known: a mixture of Gaussians in one dimension.

The base predicts the exact noise of the mixture p. The reward is a parabola, so p exp(r / b) is a
mixture of Gaussians as well, and the exact correction is the difference of two exact predictions.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from finetune.labels.weighted_batches import WeightedData, WeightedImages, weighted_images
from finetune.labels.weighting import sample_weights
from finetune.learning.training import rate_schedule
from finetune.methods import reward_weighted
from finetune.model.diffusion import DiffusionModel
from finetune.model.family import Family, Sizes
from finetune.model.sampler import draw_latents
from finetune.model.schedule import DiffusionSchedule, NoiseSchedule
from finetune.settings.model import AdapterSettings
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.sampler import Sampler
from tests.support.small_training import seeded, training_of

pytestmark = pytest.mark.slow

BEST, WIDTH = 1.0, 1.0
"""The place of the highest reward, and the standard deviation of exp(reward)."""
CONFIG = RewardWeightedConfig(
    updates=400,
    batch=256,
    micro_batch=256,
    learning_rate=3e-3,
    weighting="exp",
    kl_budget=0.5,
    pretraining_weight=0.0,
    caption_dropout=0.0,
)


class Mixture(NamedTuple):
    """Gaussians of one variance in one dimension."""

    weights: Tensor
    """[K]."""
    means: Tensor
    """[K]."""
    variance: float

    def tilted(self, temperature: float) -> "Mixture":
        """Return the mixture proportional to this one times exp(reward / temperature)."""
        other = temperature * WIDTH**2
        variance = 1 / (1 / self.variance + 1 / other)
        weights = self.weights * (-((self.means - BEST) ** 2) / 2 / (self.variance + other)).exp()
        means = variance * (self.means / self.variance + BEST / other)
        return Mixture(weights / weights.sum(), means, variance)

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Return samples [count, 1, 1, 1]."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, generator=generator)
        drawn: Tensor = self.means[chosen] + self.variance**0.5 * noise
        return drawn.view(-1, 1, 1, 1)

    def noise(self, x: Tensor, schedule: NoiseSchedule, timesteps: Tensor) -> Tensor:
        """Return the expected noise [N, 1, 1, 1] in noised samples of this shape."""
        at = schedule.level(timesteps)
        variance = at.signal**2 * self.variance + at.variance
        apart = x - at.signal * self.means  # [N, 1, 1, K]
        shares = (self.weights.log() - apart**2 / (2 * variance)).softmax(-1)
        expected: Tensor = at.spread / variance * (shares * apart).sum(-1, keepdim=True)
        return expected


BASE = Mixture(torch.tensor([0.6, 0.4]), torch.tensor([-1.0, 1.0]), 0.15)
WITHOUT_PROMPT = BASE._replace(variance=0.6)
"""The base's images of the empty prompt."""


class Exact(nn.Module):
    """The exact denoiser of the base's mixture."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, schedule: NoiseSchedule) -> None:
        """Take the noise levels; the one weight counts as the base's parameters."""
        super().__init__()
        self.schedule, self.weight = schedule, nn.Parameter(torch.zeros(1))

    def forward(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        """Return the expected noise, for the prompts and for the empty prompt."""
        inputs = (latents, self.schedule, timesteps)
        is_prompt = embeddings[:, :1, :1, None] > 0
        return torch.where(is_prompt, BASE.noise(*inputs), WITHOUT_PROMPT.noise(*inputs))


class MixtureFamily(Family):
    """A model that draws from the mixture."""

    pipeline_class = StableDiffusionPipeline
    network_name = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ()

    latent_channels = 1

    def _sizes(self) -> Sizes:
        return Sizes((1, 1), 1)

    def encode(self, prompts: Sequence[str], device: torch.device) -> Tensor:  # noqa: ARG002
        """Return ones for every prompt, and zeros for the empty one."""
        return torch.stack([torch.full((1, 8), float(prompt != "")) for prompt in prompts])

    def output(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, *_: Any) -> Tensor:
        """Return the exact noise."""
        found: Tensor = self.network(latents, timesteps, embeddings)
        return found

    def schedule(self, steps: int, device: torch.device) -> DiffusionSchedule:  # noqa: ARG002
        """Return Stable Diffusion's schedule, to its very end."""
        return ddim_schedule(steps)


def ddim_schedule(steps: int) -> DiffusionSchedule:
    """Return the noise schedule of Stable Diffusion with a sampler that ends without noise."""
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    return DiffusionSchedule.of(scheduler)


def reward(x: Tensor) -> Tensor:
    """Return the rewards [N] of samples [N, 1, 1, 1]."""
    return -(x.flatten() - BEST).square() / (2 * WIDTH**2)


class Tuned(NamedTuple):
    """A trained model."""

    model: DiffusionModel
    sampler: Sampler
    images: WeightedImages
    """The images that it learned from."""
    temperature: float
    """The temperature b of their weights exp(r / b)."""

    def rewards(self, strength: float, seeds: range) -> Tensor:
        """Return the rewards of images drawn at this strength."""
        with self.model.adapter.at_strength(strength):
            return reward(drawn(self.model, self.sampler, seeds))


def drawn(model: DiffusionModel, sampler: Sampler, seeds: range) -> Tensor:
    """Return samples of these seeds."""
    parts = draw_latents(model, ["x"] * len(seeds), sampler, seeds=seeds, batch=2000)
    return torch.cat(list(parts))


def tuned_with(guidance: float) -> Tuned:
    """Return a model that RWL tuned on the base's images of this guidance."""
    network = Exact(ddim_schedule(20))
    pipeline = SimpleNamespace(
        unet=network,
        device=torch.device("cpu"),
        components={"unet": network},
        set_progress_bar_config=lambda **_: None,
    )
    model = DiffusionModel(MixtureFamily(pipeline))
    settings = AdapterSettings(kind="side")
    model.add_adapter(settings, generator=seeded(1))
    sampler = Sampler(steps=20, guidance=guidance, eta=0.0)
    x = BASE.drawn(20_000, seeded(2))
    if guidance != 1:
        x = drawn(model, sampler, range(1_000_000, 1_020_000))
    data = WeightedData(x, ["x"] * len(x), reward(x))
    weights = sample_weights(data.rewards, data.prompts, CONFIG).log()
    temperature = float((data.rewards[0] - data.rewards[1]) / (weights[0] - weights[1]))
    training = training_of(
        model, CONFIG.model_copy(update={"adapter": settings}), sampler=sampler, data=data
    )
    state, schedule = reward_weighted.start(training), model.schedule(20)
    images = weighted_images(data, None, CONFIG, device=model.device)
    for step in range(CONFIG.updates):
        share = rate_schedule(step, warmup=CONFIG.warmup, total=CONFIG.updates)
        rate = CONFIG.learning_rate * share
        reward_weighted.update(training, state, images, schedule, learning_rate=rate)
    return Tuned(model, sampler, images, temperature)


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    return tuned_with(guidance=1.0)


@torch.no_grad()
def test_the_correction_of_rwl_is_the_gradient_of_log_h(tuned: Tuned) -> None:
    schedule, target = tuned.model.schedule(20), BASE.tilted(tuned.temperature)
    timesteps = torch.randint(1000, (20_000,), generator=seeded(3))
    noise = torch.randn(len(timesteps), 1, 1, 1, generator=seeded(4))
    x = schedule.add_noise(target.drawn(len(timesteps), seeded(5)), noise, timesteps)
    exact = target.noise(x, schedule, timesteps) - BASE.noise(x, schedule, timesteps)
    cond = tuned.model.encode_prompts(["x"]).expand(len(x), -1, -1)
    found = tuned.model.predict(x, timesteps, cond, cond, 1.0) - BASE.noise(x, schedule, timesteps)
    error = float((found - exact).norm() / exact.norm())
    assert float(exact.square().mean()) > 0.01
    assert error <= 0.15


def test_the_reward_rises_with_the_strength_up_to_a_point(tuned: Tuned) -> None:
    validation, others = range(2000), range(10_000, 12_000)
    strengths = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 6.0)
    found = {one: float(tuned.rewards(one, validation).mean()) for one in strengths}
    chosen = max(found, key=lambda one: found[one])
    assert 1.0 < chosen < 6.0
    rising = [reward for strength, reward in found.items() if strength <= chosen]
    assert rising == sorted(rising)
    base, as_trained, best, most = (
        float(tuned.rewards(one, others).mean()) for one in (0.0, 1.0, chosen, 6.0)
    )
    assert base < as_trained < best
    assert most < best


def test_with_guidance_it_draws_the_weighted_images_of_that_guidance() -> None:
    tuned = tuned_with(guidance=3.0)
    learned = reward(tuned.images.latents)
    target, base = float((tuned.images.probabilities * learned).sum()), float(learned.mean())
    found = float(tuned.rewards(1.0, range(4000)).mean())
    assert found - base == pytest.approx(target - base, rel=0.1)

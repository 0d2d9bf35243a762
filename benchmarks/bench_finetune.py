"""Speed of a DPOK iteration: `python -m benchmarks.bench_finetune`.

Results are in `results/bench_finetune.json`. Pictune's loop is compared with a straightforward loop
with the schedule of the published DPOK code, on the same work: the same UNet with random weights
(of the embedded model's shape, or of any folder's), images, transitions, updates, loss and
optimizer. The straightforward loop holds two UNets, encodes prompts and scores images one by one,
reads numbers back at every step, grows its buffer by `torch.cat` with the embeddings beside each
transition, and trains on batches of 4. Both train on the first 60 % of the steps, as by default: in
bfloat16 the last step's gradient would be mostly rounding. Both take turns in one process, and in
float32 both must compute the same gradients (cosine at least 0.999 at every update), so that
neither gains speed by less work. A further row is Pictune's loop in bfloat16, with its cosine.
Images per second cover the whole iteration: drawing, scoring and all updates. Processor seconds
exclude the cost of other programs; on a GPU wall-clock time counts. The first iteration warms up.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.distributions import Normal

from benchmarks.record import arguments, record
from finetune.learning.method import Training
from finetune.learning.rollout import choose_transitions
from finetune.learning.validation import Validator
from finetune.methods import dpok, policy_gradient
from finetune.methods.policy_gradient import ADVANTAGE_CLIP
from finetune.model.diffusion import DiffusionModel
from finetune.settings.dpok import DPOKConfig
from finetune.settings.model import AdapterSettings, NetworkSettings, Precision
from finetune.settings.policy_gradient import RolloutSampler
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.stock import ddim

PROMPTS = ("A cat and a dog.", "A dog on the moon.")
BATCH = 4
"""Transitions in one batch of the published code."""


def sampler_of(config: DPOKConfig) -> Sampler:
    """Return the sampler of both loops."""
    return Sampler().overridden(config.sampler)


def contrast(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Reward the contrast of light and dark, a function that costs almost no time."""
    assert len(images) == len(prompts)
    return images.flatten(1).std(1)


def open_model(folder: str, device: str, precision: Precision) -> DiffusionModel:
    """Open the folder's model with random weights in its UNet, and adapters that are not zero."""
    model = DiffusionModel.from_pretrained(folder, device=device, precision=precision)
    torch.manual_seed(0)
    fresh = UNet2DConditionModel.from_config(model.network.config)
    model.network.load_state_dict(fresh.requires_grad_(False).eval().state_dict())
    generator = torch.Generator().manual_seed(0)
    model.add_adapter(AdapterSettings(), generator=generator)
    for name, weight in model.adapter.parameters().items():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return model


@dataclass
class Straightforward:
    """The schedule of the published code, in plain form."""

    model: DiffusionModel
    config: DPOKConfig
    generator: torch.Generator
    gradients: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Create the second UNet."""
        self.sampler = sampler_of(self.config)
        self.policy = self.model.network
        self.policy.set_attn_processor(AttnProcessor())
        self.reference = copy.deepcopy(self.policy)
        self.reference.disable_adapters()
        self.parameters = list(self.model.adapter.parameters().values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, self.config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.scheduler = ddim(self.model.pipeline)
        self.scheduler.set_timesteps(self.sampler.steps, device=self.model.device)
        self.alphas = self.scheduler.alphas_cumprod.to(self.model.device)

    def encode(self, prompt: str) -> Tensor:
        """Encode one prompt, again each time."""
        encoded = self.model.pipeline.encode_prompt(prompt, self.model.device, 1, False)
        embedding: Tensor = encoded[0]
        return embedding.detach()

    def predict(
        self, unet: nn.Module, latents: Tensor, timesteps: Tensor, cond: Tensor, uncond: Tensor
    ) -> Tensor:
        """Return the prediction with guidance."""
        twice = torch.cat([timesteps, timesteps])
        both = unet(torch.cat([latents, latents]), twice, torch.cat([uncond, cond])).sample
        without, with_prompt = both.chunk(2)
        guided: Tensor = without + self.sampler.guidance * (with_prompt - without)
        return guided

    def step(
        self, output: Tensor, timesteps: Tensor, latents: Tensor, eta: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the next latents, by the formulas of Song et al."""
        table, stride = self.alphas, 1000 // self.sampler.steps
        at = table[timesteps].view(-1, 1, 1, 1)
        earlier = timesteps - stride
        final = self.scheduler.final_alpha_cumprod.to(self.model.device)
        before = torch.where(earlier >= 0, table[earlier.clamp(min=0)], final).view(-1, 1, 1, 1)
        if self.scheduler.config.prediction_type == "v_prediction":
            image = at.sqrt() * latents - (1 - at).sqrt() * output
            noise = at.sqrt() * output + (1 - at).sqrt() * latents
        else:
            image, noise = (latents - (1 - at).sqrt() * output) / at.sqrt(), output
        std = eta * ((1 - before) / (1 - at) * (1 - at / before)).sqrt()
        return before.sqrt() * image + (1 - before - std**2).sqrt() * noise, std.expand_as(latents)

    def iterate(self) -> float:
        """Do one iteration; return the mean reward."""
        buffer, rewards, prompts = self.collect()
        pairs = choose_transitions(
            len(prompts),
            self.sampler.stochastic_steps,
            self.config.timestep_fraction,
            generator=self.generator,
        )
        places = (pairs[:, 1] * len(prompts) + pairs[:, 0]).chunk(self.config.updates)
        device = self.model.device
        for group in places:
            for batch in group.split(BATCH):
                some = {name: values[batch].to(device) for name, values in buffer.items()}
                (self.loss(some) * (len(batch) / len(group))).backward()
            self.gradients.append(flat(self.parameters))
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return float(rewards.mean())

    @torch.no_grad()
    def collect(self) -> tuple[dict[str, Tensor], Tensor, list[str]]:
        """Draw the images and fill the buffer, step by step."""
        prompts = [prompt for prompt in PROMPTS for _ in range(self.config.images_per_prompt)]
        cond = torch.cat([self.encode(prompt) for prompt in prompts])
        uncond = torch.cat([self.encode("") for _ in prompts])
        shape, device = (len(prompts), *self.model.latent_shape), self.model.device
        latents = torch.randn(shape, generator=self.generator).to(device)
        buffer: dict[str, Tensor] = {}
        stochastic_steps = self.sampler.stochastic_steps
        for i, timestep in enumerate(self.scheduler.timesteps):
            timesteps, noisy = timestep.expand(len(prompts)), i < stochastic_steps
            output = self.predict(self.policy, latents, timesteps, cond, uncond)
            following, std = self.step(output, timesteps, latents, eta=float(noisy))
            if noisy:
                distribution = Normal(following, std)
                noise = torch.randn(shape, generator=self.generator).to(device)
                following = following + std * noise
                new = {
                    "latents": latents,
                    "following": following,
                    "timesteps": timesteps,
                    "log_probs": distribution.log_prob(following).mean((1, 2, 3)),
                    "cond": cond,
                    "uncond": uncond,
                }
                for name, values in new.items():
                    earlier = [buffer[name]] if name in buffer else []
                    buffer[name] = torch.cat([*earlier, values.cpu()])
            latents = following
        images = [self.model.decode(one[None]) for one in latents]
        pairs = zip(images, prompts, strict=True)
        rewards = torch.tensor([contrast(image, [prompt]).item() for image, prompt in pairs])
        buffer["advantages"] = self.advantages(prompts, rewards).repeat(stochastic_steps)
        return buffer, rewards, prompts

    def advantages(self, prompts: list[str], rewards: Tensor) -> Tensor:
        """Return rewards normalized per prompt."""
        result = torch.empty_like(rewards)
        for prompt in PROMPTS:
            rows = torch.tensor([other == prompt for other in prompts])
            own = rewards[rows]
            std = own.std(correction=0).clamp(min=self.config.std_floor)
            result[rows] = (own - own.mean()) / std
        return result.clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)

    def loss(self, some: dict[str, Tensor]) -> Tensor:
        """Return DPOK's loss of a few transitions."""
        latents, timesteps = some["latents"], some["timesteps"]
        inputs = latents, timesteps, some["cond"], some["uncond"]
        with torch.no_grad():
            output = self.predict(self.reference, *inputs)
            reference = Normal(*self.step(output, timesteps, latents))
        now = Normal(*self.step(self.predict(self.policy, *inputs), timesteps, latents))
        ratio = torch.exp(now.log_prob(some["following"]).mean((1, 2, 3)) - some["log_probs"])
        clipped = ratio.clamp(1 - self.config.clip_range, 1 + self.config.clip_range)
        gain = torch.minimum(ratio * some["advantages"], clipped * some["advantages"]).mean()
        kl = torch.distributions.kl_divergence(now, reference).mean()
        logged = [one.item() for one in (gain, kl, ratio.mean())]  # at every batch
        assert all(isinstance(value, float) for value in logged)
        return self.config.kl_weight * kl - gain


@dataclass
class Ours:
    """The loop of `finetune.methods.policy_gradient`, iteration by iteration."""

    model: DiffusionModel
    config: DPOKConfig
    generator: torch.Generator
    gradients: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start without validating the base."""
        model, config, sampler = self.model, self.config, sampler_of(self.config)
        parameters = list(model.adapter.parameters().values())
        validator = Validator(model, PROMPTS, contrast, config.validation, sampler)
        training = Training(model, PROMPTS, contrast, config, sampler, validator, self.generator)
        state = dpok.METHOD.start(training)
        assert isinstance(state, policy_gradient.PolicyState)
        state.statistics.window = 1  # each batch by itself, as the plain loop does
        state.validation = [(0, 0.0)]
        state.optimizer.register_step_pre_hook(lambda *_: self.gradients.append(flat(parameters)))
        self.steps = dpok.METHOD.train(training, state)

    def iterate(self) -> float:
        """Do one iteration; return the mean reward."""
        metrics = next(self.steps)
        assert isinstance(metrics, policy_gradient.Metrics)
        return metrics.reward


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return all gradients as one vector; missing gradients are zero."""
    gradients = [torch.zeros(p.numel()) if p.grad is None else p.grad for p in parameters]
    return torch.cat([gradient.flatten().cpu() for gradient in gradients])


@dataclass(frozen=True)
class Cost:
    """Cost of one iteration."""

    seconds: float
    cpu_seconds: float
    reward: float


def measure(iterate: Callable[[], float], device: torch.device) -> Cost:
    """Do and time one iteration."""
    clock, processor = time.perf_counter(), time.process_time()
    reward = iterate()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Cost(time.perf_counter() - clock, time.process_time() - processor, reward)


def compare(ours: Ours, plain: Straightforward, iterations: int) -> dict[str, Any]:
    """Run both loops in turns; return the figures of both."""
    device, images = ours.model.device, len(PROMPTS) * ours.config.images_per_prompt
    loops = {"ours": ours.iterate, "straightforward": plain.iterate}
    costs: dict[str, list[Cost]] = {name: [] for name in loops}
    for _ in range(iterations + 1):
        for name, iterate in loops.items():
            costs[name].append(measure(iterate, device))
    gradients = zip(ours.gradients, plain.gradients, strict=True)
    cosines = [torch.cosine_similarity(mine, other, dim=0).item() for mine, other in gradients]
    rewards = zip(costs["ours"], costs["straightforward"], strict=True)
    figures: dict[str, Any] = {
        "gradient_cosine_min": round(min(cosines), 6),
        "reward_difference_max": max(abs(mine.reward - other.reward) for mine, other in rewards),
    }
    for kind in ("second", "cpu_second"):
        speeds = []
        for name, own in costs.items():
            timed = own[1:]
            seconds = sum(getattr(one, f"{kind}s") for one in timed)
            speeds.append(round(images * len(timed) / seconds, 3))
            figures[f"{name}_images_per_{kind}"] = speeds[-1]
        figures[f"ratio_{kind}s"] = round(speeds[0] / speeds[1], 2)
    return figures


def work(iterations: int, images: int, steps: int, micro_batch: int) -> DPOKConfig:
    """Return the settings of both loops.

    Every stochastic transition is trained on once, in four updates.
    """
    # One more iteration for the warm-up, and one that never runs, since the last is validated.
    total = iterations + 2
    return DPOKConfig(
        iterations=total,
        prompts_per_iteration=len(PROMPTS),
        images_per_prompt=images,
        sampler=RolloutSampler(steps=steps),
        updates=4,
        micro_batch=micro_batch,
        warmup=0,
        learning_rate=1e-4,
        baseline="prompt_mean",
        validation=ValidationConfig(every=total, images_per_prompt=1),
    )


def main() -> None:
    """Run both, print and write the figures."""
    given = arguments(
        __doc__,
        model="models/emoji-sd",
        device="cpu",
        iterations=3,
        images=16,
        steps=10,
        micro_batch=32,
        channels_last=False,
        compile=False,
    )
    config = work(given.iterations, given.images, given.steps, given.micro_batch)
    rows = {}
    for precision in ("fp32", "bf16"):
        model = open_model(given.model, given.device, precision)
        model.set_up(NetworkSettings(channels_last=given.channels_last, compile=given.compile))
        other = open_model(given.model, given.device, "fp32")
        ours = Ours(model, config, torch.Generator().manual_seed(1))
        plain = Straightforward(other, config, torch.Generator().manual_seed(1))
        rows[precision] = compare(ours, plain, given.iterations)
        print(precision, rows[precision], flush=True)
    threads = torch.get_num_threads()
    record("bench_finetune", {"threads": threads, "work": vars(given), "ours_in": rows})
    if rows["fp32"]["gradient_cosine_min"] < 0.999:
        advice = "so the times cannot be compared"
        raise SystemExit(f"the gradients differ: cosine below 0.999, {advice}")


if __name__ == "__main__":
    main()

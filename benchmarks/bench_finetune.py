"""Speed of a DPOK iteration: `python -m benchmarks.bench_finetune`, see `results/bench_finetune.json`.

Ours runs beside a straightforward loop with the schedule of the published DPOK code, on the same work: the same UNet with random weights
(of the embedded model's shape, or of any folder's), images, transitions, updates, loss and optimizer. The straightforward loop
holds two UNets, encodes prompts and scores images one by one, reads numbers back at every step, grows its buffer by `torch.cat` with
the embeddings beside each transition, and trains on batches of 4. The steps that are trained on are those of our defaults, the first 60 %:
in bfloat16 the last one's gradient would be mostly rounding. Both take turns in one process, and in float32 both must arrive at
the same gradients: cosine at least 0.999 at every update, so that no speed comes from doing less. Ours in bfloat16 stands beside it, with
the cosine that it reaches.

Images per second are of the whole iteration: drawing, scoring and all updates. The processor's seconds are what the work costs, other
programs aside; on a GPU the clock on the wall counts. The first iteration warms up.
"""

import argparse
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

from benchmarks.record import record
from finetune import dpok, policy_gradient
from finetune.diffusion import DiffusionModel, LoraSettings, Precision, UNetSettings
from finetune.rollout import choose_transitions
from finetune.training import ValidationConfig

PROMPTS = ("A cat and a dog.", "A dog on the moon.")
BATCH = 4
"""Transitions in one batch of the published code."""


def contrast(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """A reward that costs nothing."""
    assert len(images) == len(prompts)
    return images.flatten(1).std(1)


def open_model(folder: str, device: str, precision: Precision) -> DiffusionModel:
    """The folder's model with random weights in its UNet, and with adapters that already say something."""
    model = DiffusionModel.from_pretrained(folder, device=device, precision=precision)
    torch.manual_seed(0)
    fresh = (
        UNet2DConditionModel.from_config(model.pipeline.unet.config).requires_grad_(False).eval()
    )
    model.pipeline.unet.load_state_dict(fresh.state_dict())
    generator = torch.Generator().manual_seed(0)
    model.add_lora(LoraSettings(), generator=generator)
    for name, weight in model.lora_parameters().items():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return model


@dataclass
class Straightforward:
    """The published code's schedule, written plainly."""

    model: DiffusionModel
    config: dpok.DPOKConfig
    generator: torch.Generator
    gradients: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Makes the second UNet."""
        self.policy = self.model.pipeline.unet
        self.policy.set_attn_processor(AttnProcessor())
        self.reference = copy.deepcopy(self.policy)
        self.reference.disable_adapters()
        self.parameters = list(self.model.lora_parameters().values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, self.config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.scheduler = self.model.scheduler(self.config.steps)

    def encode(self, prompt: str) -> Tensor:
        """One prompt, anew each time."""
        embedding: Tensor = self.model.pipeline.encode_prompt(prompt, self.model.device, 1, False)[
            0
        ]
        return embedding.detach()

    def predict(
        self, unet: nn.Module, latents: Tensor, timesteps: Tensor, cond: Tensor, uncond: Tensor
    ) -> Tensor:
        """Guided prediction."""
        both = unet(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            torch.cat([uncond, cond]),
        ).sample
        without, with_prompt = both.chunk(2)
        guided: Tensor = without + self.config.guidance * (with_prompt - without)
        return guided

    def step(
        self, output: Tensor, timesteps: Tensor, latents: Tensor, eta: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the next latents, by the formulas of Song et al."""
        table, stride = self.scheduler.alphas_cumprod, 1000 // self.config.steps
        at = table[timesteps].view(-1, 1, 1, 1)
        earlier = timesteps - stride
        before = torch.where(
            earlier >= 0, table[earlier.clamp(min=0)], self.scheduler.final_alpha_cumprod
        ).view(-1, 1, 1, 1)
        if self.scheduler.config.prediction_type == "v_prediction":
            image, noise = (
                at.sqrt() * latents - (1 - at).sqrt() * output,
                at.sqrt() * output + (1 - at).sqrt() * latents,
            )
        else:
            image, noise = (latents - (1 - at).sqrt() * output) / at.sqrt(), output
        std = eta * ((1 - before) / (1 - at) * (1 - at / before)).sqrt()
        return before.sqrt() * image + (1 - before - std**2).sqrt() * noise, std.expand_as(latents)

    def iterate(self) -> float:
        """One iteration; gives the mean reward."""
        buffer, rewards, prompts = self.collect()
        pairs = choose_transitions(len(prompts), self.config, generator=self.generator)
        places = (pairs[:, 1] * len(prompts) + pairs[:, 0]).chunk(self.config.updates)
        for group in places:
            for batch in group.split(BATCH):
                some = {
                    name: values[batch].to(self.model.device) for name, values in buffer.items()
                }
                (self.loss(some) * (len(batch) / len(group))).backward()
            self.gradients.append(flat(self.parameters))
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return float(rewards.mean())

    @torch.no_grad()
    def collect(self) -> tuple[dict[str, Tensor], Tensor, list[str]]:
        """Draws the images and fills the buffer, step by step."""
        prompts = [prompt for prompt in PROMPTS for _ in range(self.config.images_per_prompt)]
        cond = torch.cat([self.encode(prompt) for prompt in prompts])
        uncond = torch.cat([self.encode("") for _ in prompts])
        shape = (len(prompts), *self.model.latent_shape)
        latents = torch.randn(shape, generator=self.generator).to(self.model.device)
        buffer: dict[str, Tensor] = {}
        for i, timestep in enumerate(self.scheduler.timesteps):
            timesteps, noisy = timestep.expand(len(prompts)), i < self.config.stochastic_steps
            output = self.predict(self.policy, latents, timesteps, cond, uncond)
            following, std = self.step(output, timesteps, latents, eta=float(noisy))
            if noisy:
                distribution = Normal(following, std)
                following = following + std * torch.randn(shape, generator=self.generator).to(
                    self.model.device
                )
                new = {
                    "latents": latents.cpu(),
                    "following": following.cpu(),
                    "timesteps": timesteps.cpu(),
                    "log_probs": distribution.log_prob(following).mean((1, 2, 3)).cpu(),
                    "cond": cond.cpu(),
                    "uncond": uncond.cpu(),
                }
                buffer = {
                    name: torch.cat([buffer[name], values]) if buffer else values
                    for name, values in new.items()
                }
            latents = following
        images = torch.cat([self.model.decode(one[None]) for one in latents])
        rewards = torch.tensor(
            [
                contrast(image[None], [prompt]).item()
                for image, prompt in zip(images, prompts, strict=True)
            ]
        )
        buffer["advantages"] = self.advantages(prompts, rewards).repeat(
            self.config.stochastic_steps
        )
        return buffer, rewards, prompts

    def advantages(self, prompts: list[str], rewards: Tensor) -> Tensor:
        """Normalised per prompt."""
        result = torch.empty_like(rewards)
        for prompt in PROMPTS:
            rows = torch.tensor([other == prompt for other in prompts])
            result[rows] = (rewards[rows] - rewards[rows].mean()) / rewards[rows].std(
                correction=0
            ).clamp(min=self.config.std_floor)
        return result.clamp(-self.config.advantage_clip, self.config.advantage_clip)

    def loss(self, some: dict[str, Tensor]) -> Tensor:
        """DPOK's of a few transitions."""
        inputs = some["latents"], some["timesteps"], some["cond"], some["uncond"]
        with torch.no_grad():
            reference = Normal(
                *self.step(
                    self.predict(self.reference, *inputs), some["timesteps"], some["latents"]
                )
            )
        now = Normal(
            *self.step(self.predict(self.policy, *inputs), some["timesteps"], some["latents"])
        )
        ratio = torch.exp(now.log_prob(some["following"]).mean((1, 2, 3)) - some["log_probs"])
        clipped = ratio.clamp(1 - self.config.clip_range, 1 + self.config.clip_range)
        gain = torch.minimum(ratio * some["advantages"], clipped * some["advantages"]).mean()
        kl = torch.distributions.kl_divergence(now, reference).mean()
        assert all(
            isinstance(one.item(), float) for one in (gain, kl, ratio.mean())
        )  # logged at every batch
        return self.config.kl_weight * kl - gain


@dataclass
class Ours:
    """`finetune.policy_gradient.train`, iteration by iteration."""

    model: DiffusionModel
    config: dpok.DPOKConfig
    generator: torch.Generator
    gradients: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Starts; the base need not be validated."""
        parameters = list(self.model.lora_parameters().values())
        state = policy_gradient.start(self.model, self.config, generator=self.generator)
        state.validation = [(0, 0.0)]
        state.optimizer.register_step_pre_hook(lambda *_: self.gradients.append(flat(parameters)))
        self.steps = policy_gradient.train(
            self.model, PROMPTS, contrast, self.config, generator=self.generator, state=state
        )

    def iterate(self) -> float:
        """One iteration; gives the mean reward."""
        return next(self.steps).reward


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """All gradients as one vector."""
    return torch.cat(
        [
            p.grad.flatten().cpu() if p.grad is not None else torch.zeros(p.numel())
            for p in parameters
        ]
    )


@dataclass(frozen=True)
class Cost:
    """Of one iteration."""

    seconds: float
    cpu_seconds: float
    reward: float


def measure(iterate: Callable[[], float], device: torch.device) -> Cost:
    """Runs and times one iteration."""
    clock, processor = time.perf_counter(), time.process_time()
    reward = iterate()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Cost(time.perf_counter() - clock, time.process_time() - processor, reward)


def compare(ours: Ours, plain: Straightforward, iterations: int) -> dict[str, Any]:
    """Both in turns; figures of ours beside the straightforward loop."""
    device, images = ours.model.device, len(PROMPTS) * ours.config.images_per_prompt
    pairs = [
        (measure(ours.iterate, device), measure(plain.iterate, device))
        for _ in range(iterations + 1)
    ]
    cosines = [
        torch.cosine_similarity(a, b, dim=0).item()
        for a, b in zip(ours.gradients, plain.gradients, strict=True)
    ]
    figures: dict[str, Any] = {
        "gradient_cosine_min": round(min(cosines), 6),
        "reward_difference_max": max(abs(a.reward - b.reward) for a, b in pairs),
    }
    timed = pairs[1:]
    for kind in ("seconds", "cpu_seconds"):
        for name, costs in (
            ("ours", [a for a, _ in timed]),
            ("straightforward", [b for _, b in timed]),
        ):
            figures[f"{name}_images_per_{kind.removesuffix('s')}"] = round(
                images * len(costs) / sum(getattr(one, kind) for one in costs), 3
            )
        figures[f"ratio_{kind}"] = round(
            figures[f"ours_images_per_{kind[:-1]}"]
            / figures[f"straightforward_images_per_{kind[:-1]}"],
            2,
        )
    return figures


def work(iterations: int, images: int, steps: int, micro_batch: int) -> dpok.DPOKConfig:
    """The settings of both loops; every stochastic transition is trained on once, in four updates."""
    return dpok.DPOKConfig(
        iterations=iterations
        + 2,  # one to warm up, and one that never comes, since the last is validated
        prompts_per_iteration=len(PROMPTS),
        images_per_prompt=images,
        steps=steps,
        updates=4,
        micro_batch=micro_batch,
        warmup=0,
        learning_rate=1e-4,
        baseline="prompt_mean",
        statistics_window=1,
        validation=ValidationConfig(every=iterations + 2, images_per_prompt=1),
    )


def main() -> None:
    """Runs both, prints and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/emoji-sd", help="folder whose shapes are taken")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--images", type=int, default=16, help="images of each of the two prompts")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument(
        "--channels-last", action="store_true", help="as finetune.channels_last, for ours"
    )
    parser.add_argument("--compile", action="store_true", help="as finetune.compile, for ours")
    given = parser.parse_args()
    config = work(given.iterations, given.images, given.steps, given.micro_batch)
    rows = {}
    for precision in ("fp32", "bf16"):
        model = open_model(given.model, given.device, precision)
        model.set_up(UNetSettings(channels_last=given.channels_last, compile=given.compile))
        ours = Ours(model, config, torch.Generator().manual_seed(1))
        plain = Straightforward(
            open_model(given.model, given.device, "fp32"), config, torch.Generator().manual_seed(1)
        )
        rows[precision] = compare(ours, plain, given.iterations)
        print(precision, rows[precision], flush=True)
    record(
        "bench_finetune", {"threads": torch.get_num_threads(), "work": vars(given), "ours_in": rows}
    )
    if rows["fp32"]["gradient_cosine_min"] < 0.999:
        raise SystemExit(
            "the gradients differ: cosine below 0.999, so the times cannot be compared"
        )


if __name__ == "__main__":
    main()

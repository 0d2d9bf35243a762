"""Ten minutes on a card: `python -m benchmarks.on_gpu`; figures and a page go to `--out`.

Models have random weights in the true sizes of published ones, so nothing is downloaded. Each part
stands for itself: a part that fails leaves its error, and `on_gpu.json` and `on_gpu.md` are written
after each. Parts that begin after `--minutes` are left out. A part runs once to warm up, which also
counts its floating-point operations, and once for its time. The share of the card is the operations
per second over those of a bf16 matrix product, measured by the first part. `--tiny` tries the
program with tiny models on a CPU.
"""

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_finetune import Ours, Straightforward, compare, work
from benchmarks.record import arguments, commit, in_lines
from benchmarks.true_sizes import MODELS, vit_l_14
from data.files import write_atomically
from finetune.labels.rankings import LabeledImages, Labels
from finetune.labels.weighted_batches import WeightedData
from finetune.learning.method import new_training
from finetune.model.diffusion import DiffusionModel
from finetune.model.model_folder import FAMILIES, TYPES, Weights
from finetune.model.sampler import draw_latents
from finetune.settings.method import DrawsImages, LearnsFromLabels
from finetune.settings.model import AdapterSettings, NetworkSettings, Precision
from finetune.settings.sampler import Sampler
from pipelines.methods import METHODS, find_method
from pipelines.run.models import as_reward_fn
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel
from tests.support.small_labels import no_verdicts, rankings_of
from tests.support.small_training import seeded
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_diffusion import write_tiny_diffusion
from tests.support.tiny_flow import write_tiny_sd3

PROMPT = "A green colored rabbit."
SAMPLER = Sampler(steps=10, guidance=5.0, eta=0.0)
LARGEST_BATCH = 64
GAIN = 1.05
"""Least gain of images per second for which a larger batch is tried further."""
METHOD_BATCH = 4
"""Images of an iteration or update of each method, and rows of its network calls."""
Figures = dict[str, Any]
Part = Callable[[], Figures]


class Card:
    """The device, with what is open on it."""

    def __init__(self, device: str, *, tiny: bool) -> None:
        """Take the device; `tiny` opens tiny models in place of the true sizes."""
        self.device, self.tiny = torch.device(device), tiny
        self.largest = 2 if tiny else LARGEST_BATCH
        """Largest batch of images that is tried."""
        self.rate = 0.0
        """Operations per second of a bf16 matrix product."""

    def measure(self, call: Callable[[], object], *, compiles: bool = False) -> Figures:
        """Return seconds, operations and peak memory of a call, after one that warms up.

        Operations of compiled programs cannot be counted.
        """
        with nullcontext() if compiles else FlopCounterMode(display=False) as counted:
            call()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = self._now()
        call()
        seconds = self._now() - started
        found = {"seconds": seconds}
        if counted is not None:
            found["tflop"] = counted.get_total_flops() / 1e12
            found["share_of_card"] = counted.get_total_flops() / seconds / (self.rate or torch.inf)
        if self.device.type == "cuda":
            found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return found

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def matrix_rate(self) -> Figures:
        """Measure the card's bf16 matrix product, and say what the card is."""
        side = 256 if self.tiny else 8192
        one, other = (
            torch.randn(side, side, device=self.device, dtype=torch.bfloat16) for _ in "ab"
        )
        found = self.measure(lambda: [one @ other for _ in range(20)])
        self.rate = found["tflop"] * 1e12 / found["seconds"]
        about = {"torch": torch.__version__, "tflop_per_second": self.rate / 1e12}
        if self.device.type == "cuda":
            card = torch.cuda.get_device_properties(self.device)
            about |= {"card": card.name, "memory_gb": card.total_memory / 1e9}
        return about

    def open(self, name: str, weights: Weights = "bf16") -> DiffusionModel:
        """Return a model of random weights with a LoRA of rank 16."""
        precision: Precision = "fp32" if weights == "fp32" else "bf16"
        if self.tiny:
            write = write_tiny_sd3 if name == "sd35-medium" else write_tiny_diffusion
            with tempfile.TemporaryDirectory() as folder:
                path = write(Path(folder) / "model")
                model = DiffusionModel.from_pretrained(path, weights=weights, precision=precision)
        else:
            with _random_weights(self.device, TYPES[weights]):
                pipeline = MODELS[name]()
            size = 512 if name in ("sd35-medium", "flux") else None
            family = FAMILIES[type(pipeline).__name__](pipeline, size)
            model = DiffusionModel(family, precision=precision)
        model.add_adapter(AdapterSettings(rank=16, feed_forward=False), generator=seeded())
        return model

    def backbone(self) -> ClipBackbone:
        """Return a CLIP with random weights."""
        if self.tiny:
            with tempfile.TemporaryDirectory() as folder:
                return ClipBackbone.from_pretrained(save_tiny_clip(Path(folder) / "clip"))
        with _random_weights(self.device, torch.float32):
            return vit_l_14()


@contextmanager
def _random_weights(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def drawing(card: Card, name: str, **settings: bool) -> Figures:
    """Draw at growing batches; return images per second at the best one."""
    model, best = card.open(name), Figures()
    model.set_up(NetworkSettings(**settings))
    batch = 1
    while batch <= card.largest:
        prompts, seeds = [PROMPT] * batch, list(range(batch))

        def draw(prompts: list[str] = prompts, seeds: list[int] = seeds) -> None:
            with torch.no_grad():
                for latents in draw_latents(model, prompts, SAMPLER, seeds=seeds, batch=len(seeds)):
                    model.decode(latents)

        try:
            found = card.measure(draw, compiles="compile" in settings)
        except torch.OutOfMemoryError:
            break
        found |= {"batch": batch, "images_per_second": batch / found["seconds"]}
        if best and found["images_per_second"] < GAIN * best["images_per_second"]:
            break
        best, batch = found, 2 * batch
    return best | {"steps": SAMPLER.steps}


def plain_drawing(card: Card, name: str) -> Figures:
    """Draw with the stock pipeline, as its documentation shows."""
    model, batch = card.open(name), 1 if card.tiny else 4
    arguments = model.family.stock_arguments(SAMPLER.guidance)

    def draw() -> None:
        with torch.no_grad(), model.autocast():
            model.pipeline([PROMPT] * batch, num_inference_steps=SAMPLER.steps, **arguments)

    found = card.measure(draw)
    return found | {"batch": batch, "images_per_second": batch / found["seconds"]}


def tuning(card: Card, name: str, method: str) -> Figures:
    """Take an iteration or update of a method; return updates and scored images per second."""
    model, entry = card.open(name), find_method(method)
    model.checkpoint_gradients()
    count = 2 if card.tiny else METHOD_BATCH
    values: Figures = {"micro_batch": count, "validation": {"every": 10**9}}
    if issubclass(entry.config, DrawsImages):
        values |= {"prompts_per_iteration": 1, "images_per_prompt": count}
    else:
        values |= {"batch": count, "report_every": 1}
    if "updates" in entry.config.model_fields and issubclass(entry.config, DrawsImages):
        values["updates"] = 1
    config = entry.config(**values)
    sampler = SAMPLER.model_copy(update={"eta": 1.0})
    training = new_training(
        model, [PROMPT], reward_of(card), config, generator=seeded(), sampler=sampler
    )
    training = replace(training, data=_data(model, config, count))
    state = entry.start(training)
    state.validation = [(0, 0.0)]  # only updates are measured
    steps = entry.train(training, state)
    found = card.measure(lambda: next(steps))
    updates = values.get("updates", 1)
    found["updates_per_second"] = updates / found["seconds"]
    if isinstance(config, DrawsImages):
        found["queries_per_second"] = count / found["seconds"]
    return found | {"images": count, "steps": training.sampler.steps}


def _data(model: DiffusionModel, config: Any, count: int) -> Any:
    """Return random images with rewards or labels, for a method that learns from them."""
    latents = torch.randn(count, *model.latent_shape, generator=seeded()).to(model.device)
    if isinstance(config, DrawsImages):
        return None
    if not isinstance(config, LearnsFromLabels):
        return WeightedData(latents, [PROMPT] * count, torch.linspace(0, 1, count))
    labels = Labels(rankings_of([0.0, 1.0], images=[[0, 1]], prompt=[0]), no_verdicts())
    return LabeledImages(latents, (PROMPT,), labels, labels)


def reward_of(card: Card) -> Any:
    """Return an untrained reward as a function."""
    model = RewardModel.create(card.backbone(), hidden=(1024,), members=3, generator=seeded())
    return as_reward_fn(model.to(card.device).eval())


def scoring(card: Card) -> Figures:
    """Embed and score images with a CLIP like ViT-L/14."""
    count, side = (4, 32) if card.tiny else (64, 512)
    images = torch.rand(count, 3, side, side, device=card.device)
    backbone, reward = card.backbone(), reward_of(card)
    figures: Figures = {}
    calls = {
        "embedding": lambda: backbone.image_embedding(images),
        "scoring": lambda: reward(images, [PROMPT] * count),
    }
    for name, call in calls.items():
        with torch.no_grad():
            found = card.measure(call)
        figures[name] = found | {"images_per_second": count / found["seconds"]}
    return figures


def against_plain_loop(card: Card) -> Figures:
    """Compare DPOK on SD 1.5 with the straightforward loop of `bench_finetune`, in fp32."""
    images = 2 if card.tiny else 4
    config = work(iterations=1, images=images, steps=5, micro_batch=2 * images)
    ours = Ours(card.open("sd15", "fp32"), config, seeded())
    plain = Straightforward(card.open("sd15", "fp32"), config, seeded())
    return compare(ours, plain, 1)


def parts_of(card: Card, models: list[str]) -> dict[str, Part]:
    """Return the parts by name, what matters most first."""
    parts: dict[str, Part] = {"card": card.matrix_rate, "scoring": partial(scoring, card)}
    for name in models:
        parts[f"{name} drawing"] = partial(drawing, card, name)
        parts[f"{name} drawing by diffusers"] = partial(plain_drawing, card, name)
        for method in METHODS:
            parts[f"{name} {method}"] = partial(tuning, card, name, method)
    parts["sd15 dpok beside a plain loop"] = partial(against_plain_loop, card)
    for name in models:
        if name in ("sd15", "sdxl"):
            parts[f"{name} drawing, channels_last"] = partial(
                drawing, card, name, channels_last=True
            )
        parts[f"{name} drawing, compile"] = partial(drawing, card, name, compile=True)
    return parts


def run_parts(parts: dict[str, Part], about: Figures, folder: Path, seconds: float) -> None:
    """Run the parts that begin within `seconds`, and write all figures after each."""
    started = time.monotonic()
    found: dict[str, Figures] = {}
    for name, part in parts.items():
        if time.monotonic() - started > seconds:
            found[name] = {"left_out": "no time was left"}
        else:
            try:
                found[name] = part()
            except Exception as error:  # noqa: BLE001 - the next part may run
                lines = str(error).strip().split("\n")
                found[name] = {"error": f"{type(error).__name__}: {lines[0][:300]}"}
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        print(name, json.dumps(found[name]), flush=True)
        _write(folder / "on_gpu.json", in_lines(about | {"parts": found}) + "\n")
        _write(folder / "on_gpu.md", page(about, found))


def page(about: Figures, found: dict[str, Figures]) -> str:
    """Return all figures as a page of Markdown: a row for each part."""
    rows = [
        f"| {name} | {', '.join(f'{key} {_shown(value)}' for key, value in figures.items())} |"
        for name, figures in found.items()
    ]
    head = f"# Figures of one card\n\n`{about['command']}`, commit {about['commit']}.\n\n"
    return head + "\n".join(["| part | figures |", "|---|---|", *rows]) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_shown(one)}' for key, one in value.items())})"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Run all parts."""
    given = arguments(
        __doc__,
        models=[*MODELS],
        device="cuda",
        minutes=9.0,
        out="benchmarks/results",
        tiny=False,
    )
    try:
        of = commit()
    except (OSError, RuntimeError, ValueError):
        of = "unknown"
    words = " ".join(given.models)
    about = {"command": f"python -m benchmarks.on_gpu --models {words}", "commit": of}
    card = Card(given.device, tiny=given.tiny)
    Path(given.out).mkdir(parents=True, exist_ok=True)
    run_parts(parts_of(card, given.models), about, Path(given.out), 60 * given.minutes)


if __name__ == "__main__":
    main()

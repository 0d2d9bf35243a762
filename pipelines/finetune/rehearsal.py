"""A rehearsal of a training: its real work, but little of it, and the estimate of the whole.

The time of an update is measured after one that warms up. A method that draws its images rehearses
an iteration of one micro-batch of images, with as many updates fewer; the estimate scales it up.
"""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.labels.held_out import within_share
from finetune.learning.memory import Memory, Outline, Work, outline
from finetune.learning.method import Training
from finetune.learning.reward_fn import score
from finetune.model.diffusion import arithmetic
from finetune.model.sampler import draw_latents
from finetune.settings.adapter_kinds import BASE, kind_in
from finetune.settings.method import DrawsImages, LearnsFromImages, LearnsFromLabels
from finetune.settings.policy_gradient import PolicyGradientConfig
from finetune.settings.preference import PreferenceConfig
from finetune.settings.reward_gradient import RewardGradientConfig
from finetune.settings.sampler import Sampler
from pipelines.finetune.job import Job, open_job, with_images
from pipelines.finetune.plan import IMAGES, earlier_method, method_config, method_prompts
from pipelines.finetune.training_data import run_images
from pipelines.finetune.work import peak_memory_gb
from pipelines.run.image_plan import ImagesConfig
from pipelines.run.model_hashes import has_reward
from pipelines.run.models import device_of, open_reward_model
from pipelines.settings.config import Settings, check, override
from pipelines.settings.finetune import FinetuneConfig

ENOUGH = 10.0
"""Seconds of updates after which no further one is measured."""
LONG = 60.0
"""Seconds of the first update from which it counts itself, and no second one is taken."""
ENCODED = 32
"""Images that are encoded to measure the time of preparing RWL."""
GB = 1e9


def rehearse(run: RunFolder, settings: Settings, name: str) -> Iterator[str]:
    """Yield the lines of the rehearsal.

    Raises:
        PictuneError: the training does not fit into the memory, even its rehearsal; the message
            says which settings to lower. Or the method that it starts from has no adapter yet.
    """
    earlier = earlier_method(run, settings, name)
    if earlier is not None and kind_in(run.finetune_dir(earlier)) is None:
        raise PictuneError(
            f"{run.finetune_dir(earlier)}: no adapter, which {name} starts from; "
            f"run `make finetune METHOD={earlier}` first, "
            f'or rehearse with SET="{name}.adapter.start={BASE}"'
        )
    device = device_of(settings.run)
    yield f"rehearse {name}: {run.root} on {device}; nothing is written"
    before, room = _used(device), _room(device)
    expected = memory_of(run, settings, name)
    need = before + expected.peak
    advice = "" if need < room else _advice(run, settings, name, room - before)
    parts = ", ".join(f"{part} {size / GB:.2f}" for part, size in expected.weights.items())
    largest = max(expected.calls, key=lambda call: expected.calls[call])
    yield (
        f"memory by the settings: {need / GB:.2f} of {room / GB:.1f} GB (weights: {parts}; adapter "
        f"{expected.adapter / GB:.2f}; {largest} {expected.calls[largest] / GB:.2f})"
    )
    if advice:
        yield advice
    try:
        yield from _measured(run, settings, name)
    except torch.OutOfMemoryError as error:
        more = advice or "lower the method's micro_batch"
        raise PictuneError(f"rehearse {name}: out of memory; {more}") from error


def _measured(run: RunFolder, settings: Settings, name: str) -> Iterator[str]:
    started = time.perf_counter()
    job = open_job(run, settings, name)
    opening = time.perf_counter() - started
    _one_image(job)  # to warm up
    drawing = _one_image(job)
    shown = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in drawing.items())
    yield f"opened in {opening:.1f} s; one image: {shown}"
    job, preparing, missing = _with_some_images(job)
    full = job.training
    small, scale = _smaller(full)
    job.training.watch.lap()
    validation, first, later = _some_steps(job, small)
    update = (sum(later) / len(later) if later else first) * scale
    opening += max(0.0, first * scale - update)  # such as compiling
    total = job.method.total_steps(full.config)
    step = "iteration" if isinstance(full.config, DrawsImages) else "update"
    begun = 1 + (full.config.adapter.start != BASE)
    drawn = small.validator.calls / small.validator.calls_per_image
    preparing += missing * validation / begun / drawn
    validations = begun + -(-total // full.config.validation.every)
    calls = _validator_calls(full) / _validator_calls(small)
    spent = {
        "opening": opening,
        "preparing": preparing,
        f"{total} {step}s": update * total,
        f"{validations} validations": validation / begun * calls * validations,
    }
    yield f"one {step}: {update:.2f} s; peak memory {peak_memory_gb(full.model.device):.2f} GB"
    parts = ", ".join(f"{part} {seconds:.0f}" for part, seconds in spent.items())
    seconds = sum(spent.values())
    yield f"whole training: {seconds / 3600:.2f} hours ({seconds:.0f} s: {parts})"


def _some_steps(job: Job, small: Training[Any]) -> tuple[float, float, list[float]]:
    """Return the seconds of the first validation, of the first step, and of each later step."""
    state, watch = job.method.start(small), small.watch
    steps, validation, found = job.method.train(small, state), 0.0, list[float]()
    while sum(found[1:]) < ENOUGH and not (found and found[0] > LONG):
        if next(steps, None) is None:
            break
        lap = watch.lap()
        validation = validation if found else lap.get("validation", 0.0)
        found.append(sum(lap.values()) - lap.get("validation", 0.0))
    return validation, found[0], found[1:]


def _one_image(job: Job) -> dict[str, float]:
    """Draw, decode and score one image; return the seconds of each."""
    training, now = job.training, job.training.watch.now
    model, prompt, times = training.model, [training.prompts[0]], [now()]
    (latents,) = draw_latents(model, prompt, training.sampler.deterministic(), seeds=[0])
    times.append(now())
    with torch.no_grad():
        image = model.decode(latents)
    times.append(now())
    if training.reward is not None:
        score(training.reward, image, prompt)
        times.append(now())
    pairs = zip(("drawing", "decoding", "scoring"), itertools.pairwise(times), strict=False)
    return {part: end - start for part, (start, end) in pairs}


def _with_some_images(job: Job) -> tuple[Job, float, int]:
    """Return the job with images to learn from, the seconds of encoding all, and images to draw."""
    training, config, now = job.training, job.training.config, job.training.watch.now
    started = now()
    if not isinstance(config, LearnsFromImages):
        job = with_images(job)  # those that have labels
        return job, now() - started, 0
    assert training.reward is not None
    images = run_images(job.run, training.prompts)
    drawn = len(list((job.folder / IMAGES).glob("*.png")))
    scored = job.config.scored_per_prompt * len(training.prompts)
    some = images[:: max(1, len(images) // ENCODED)][:ENCODED]
    paths, texts = [path for path, _ in some], [text for _, text in some]
    data = job.encoder.encode(paths, texts, training.reward)
    encoding = (now() - started) / len(some) * (len(images) + scored)
    return replace(job, training=replace(training, data=data)), encoding, max(0, scored - drawn)


def _smaller(full: Training[Any]) -> tuple[Training[Any], float]:
    """Return a training with smaller iterations and validations, and the factor of their time."""
    scale, changes = 1.0, dict[str, Any]()
    config: Any = full.config
    validator = full.validator.within(full.validator.calls_per_image * full.validator.batch)
    if isinstance(config, LearnsFromImages | LearnsFromLabels):
        changes = {"report_every": 1}
    else:
        images = min(config.prompts_per_iteration, len(full.prompts)) * config.images_per_prompt
        fewer = min(images, max(2, config.micro_batch))
        scale = images / fewer
        changes = {"prompts_per_iteration": 1, "images_per_prompt": fewer}
        if hasattr(config, "updates"):
            changes["updates"] = max(1, round(config.updates / scale))
    rare = config.validation.model_copy(update={"every": 10**9})
    smaller = config.model_copy(update=changes | {"validation": rare})
    return replace(full, config=smaller, validator=validator), scale


def _validator_calls(training: Training[Any]) -> int:
    """Return the network passes of a validation of this training."""
    if isinstance(training.config, PreferenceConfig):
        return within_share(training).training.validator.calls
    return training.validator.calls


def memory_of(run: RunFolder, settings: Settings, name: str) -> Memory:
    """Return the memory of the training by its settings, with the reward's weights.

    Another reward than the run's is left out.
    """
    chosen, device = settings.run, device_of(settings.run)
    config = method_config(settings, name)
    model = Outline(
        outline(chosen.model, chosen.weights, chosen.image_size),
        config.adapter,
        precision=arithmetic(chosen.precision, device),
        weights=chosen.weights,
        device=device.type,
        offload_encoders=chosen.offload_encoders and device.type != "cpu",
    )
    found = model.memory(_work(run, settings, name, config))
    if not has_reward(run.reward_dir):
        return found
    on_cpu = chosen.model_copy(update={"device": "cpu"})
    reward = open_reward_model(run.reward_dir, on_cpu)
    size = sum(weight.numel() * weight.element_size() for weight in reward.parameters())
    return replace(found, weights={**found.weights, "reward": size})


def _work(run: RunFolder, settings: Settings, name: str, config: Any) -> Work:
    """Return the largest calls of the training."""
    shared, batch = (
        settings.table("finetune", FinetuneConfig),
        settings.table("images", ImagesConfig).batch,
    )
    sampler, prompts = settings.table("sampler", Sampler), len(method_prompts(run, settings, name))
    watched = len(shared.validation_prompts) or prompts
    drawn, decoded = batch, max(batch, watched * config.validation.images_per_prompt)
    chains, draws = 0, isinstance(config, DrawsImages)
    if draws:
        sampler = sampler.overridden(config.sampler)
        images = min(config.prompts_per_iteration, prompts) * config.images_per_prompt
        drawn, decoded = max(batch, config.micro_batch), max(decoded, images)
        if isinstance(config, PolicyGradientConfig):
            chains = images * (sampler.steps + 1)
    guided = isinstance(config, PolicyGradientConfig | RewardGradientConfig)
    return Work(
        drawn=drawn,
        decoded=decoded,
        rows=config.micro_batch,
        guidance=sampler.guidance if guided else 1.0,
        steps_back=config.steps_back if isinstance(config, RewardGradientConfig) else 0,
        chains=chains,
        checkpointing=shared.gradient_checkpointing,
    )


def _advice(run: RunFolder, settings: Settings, name: str, room: float) -> str:
    """Return which settings to lower so that the training fits into `room` bytes."""
    config: Any = method_config(settings, name)
    sizes = [config.micro_batch >> i for i in range(1, config.micro_batch.bit_length())]
    tried: list[tuple[tuple[str, ...], Any]] = [((name, "micro_batch"), size) for size in sizes]
    tried += [(("images", "batch"), 1), (("finetune", "gradient_checkpointing"), True)]
    kinds = ["bf16", "int8"]
    weights = settings.run.weights
    tried += [(("run", "offload_encoders"), True)]
    later = kinds[kinds.index(weights) + 1 :] if weights in kinds else kinds
    tried += [(("run", "weights"), kind) for kind in later]
    changes: dict[tuple[str, ...], Any] = {}
    for path, value in tried:
        changes[path] = value
        tables = override(settings.tables, list(changes.items()))
        changed = check(tables, tuple(settings.models), "rehearse")
        if memory_of(run, changed, name).peak < room:
            words = " ".join(f"{'.'.join(path)}={value}" for path, value in changes.items())
            return f'it does not fit; this would: SET="{words}"'.replace("True", "true")
    return "it does not fit, by no settings but a smaller run.image_size or another model"


def _room(device: torch.device) -> int:
    """Return the memory of the device in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _used(device: torch.device) -> int:
    """Return the memory in bytes that other work and this process hold before the training."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return round(peak_memory_gb(device) * GB)

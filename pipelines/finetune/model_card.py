"""The model card of a tuned adapter."""

from finetune.learning.training import TrainState
from finetune.model.diffusion import DiffusionModel, arithmetic
from finetune.model.families.sd import DDIM
from finetune.model.model_folder import TYPES
from finetune.settings.adapter_kinds import ADAPTERS, BASE
from finetune.settings.method import LearnsFromLabels
from finetune.settings.sampler import Sampler, share_of_steps
from pipelines.finetune.job import Job
from pipelines.finetune.plan import start_of
from pipelines.methods import METHODS
from pipelines.run.image_plan import EVALUATION_SEEDS, Planned, seeded
from pipelines.run.metrics_log import UNTRAINED
from pipelines.run.prompts import focus_of
from pipelines.settings.run import RunConfig

_CARD = """# {adapter} tuned by {title}

On `{model}`, for {tuned_on}. Prompts: {prompts}

From the folder that the training was started in:

```python
{code}```

This is the image of that prompt and seed in the evaluation's report, by the sampler of
eta 0{rounding}.

These are the weights of step {best} of {last}, the best by {chosen_by}:
{reward_best:.3f}, from {reward_base:.3f} before{start}.{untrained}

Metrics are in `metrics.jsonl` and TensorBoard, images at fixed seeds in `samples/`. A higher reward
is not always a better image, so look at the evaluation's report.
"""


_CODE = """\
import torch
from diffusers import {imported}

pipeline = DiffusionPipeline.from_pretrained({opened})
{sampler}{adapter}pipeline.to({device!r})
{early}image = pipeline(
    prompt={prompt!r},
    num_inference_steps={steps},
    {arguments},
    generator=torch.Generator().manual_seed({seed}),
).images[0]
"""
_EARLY = """\


def base_goes_on(pipeline, step, timestep, tensors):  # the adapter draws the first {first} steps
    if step == {first} - 1:
        pipeline.disable_lora()
    if step == {steps} - 1:
        pipeline.enable_lora()
    return tensors


"""
_DDIM = """\
pipeline.scheduler = DDIMScheduler.from_config(
    pipeline.scheduler.config, clip_sample=False, thresholding=False
)
"""


def model_card(job: Job, state: TrainState) -> str:
    """Return the text of the card: origin, use, and the step whose weights were kept."""
    settings, training = job.settings, job.training
    step, reward = state.best or state.validation[-1]
    start = start_of(job.run, settings, job.name)
    # The evaluation draws this image too, since it always draws the first focus prompt.
    first = focus_of(settings.run)[0]
    drawn = first if first in training.prompts else training.prompts[0]
    (planned,) = seeded([drawn], 1, settings.run.seed, offset=EVALUATION_SEEDS)
    sources = [f"{one.weight:g} * {one.kind} of `{one.path}`" for one in job.config.rewards]
    joined = (
        " + ".join(sources) if job.config.combine == "sum" else f"least of {', '.join(sources)}"
    )
    tuned_on = joined if sources else f"the reward model in `{job.run.reward_dir}`"
    if isinstance(training.config, LearnsFromLabels):
        tuned_on = f"the labels in `{job.run.latest}`"
    kind = ADAPTERS[training.config.adapter.kind]
    used = arithmetic(settings.run.precision, training.model.device)
    return _CARD.format(
        adapter=kind.title,
        title=f"{METHODS[job.name].title} ({job.method.paper})",
        model=settings.run.model,
        tuned_on=tuned_on,
        chosen_by="mean reward on validation seeds" if training.reward else job.chosen_by,
        prompts=" · ".join(training.prompts),
        code=drawing_code(
            training.model,
            settings.run,
            kind.code(job.folder),
            planned,
            settings.table("sampler", Sampler),
            steps_share=training.config.adapter.steps_share,
        ),
        rounding=f", but for the rounding of {used}, in which that one is drawn" * (used != "fp32"),
        best=step,
        last=state.step,
        reward_best=reward,
        reward_base=state.validation[0][1],
        untrained=f" So {UNTRAINED}." if step == 0 else "",
        start="" if start == BASE else f", which is where training started: `{start}`",
    )


def drawing_code(
    model: DiffusionModel,
    config: RunConfig,
    adapter: str,
    one: Planned,
    sampler: Sampler,
    *,
    steps_share: float,
) -> str:
    """Return code that draws an image with diffusers alone.

    `adapter` is code that opens the adapter, and `steps_share` the share of the steps in which it
    draws.
    """
    is_ddim = model.family.sampler_name == DDIM
    variant = f", variant={model.family.variant!r}" if model.family.variant else ""
    given = [f"{k}={v!r}" for k, v in model.family.stock_arguments(sampler.guidance).items()]
    early = ""
    if steps_share < 1:
        early = _EARLY.format(first=share_of_steps(sampler.steps, steps_share), steps=sampler.steps)
        given.append("callback_on_step_end=base_goes_on")
    return _CODE.format(
        imported=f"{DDIM}, DiffusionPipeline" if is_ddim else "DiffusionPipeline",
        opened=f"{config.model!r}{variant}, dtype={TYPES[config.weights]}",
        sampler=_DDIM if is_ddim else "",
        adapter=adapter,
        device=config.device,
        prompt=one.prompt,
        steps=sampler.steps,
        early=early,
        arguments=",\n    ".join(given),
        seed=one.seed,
    )

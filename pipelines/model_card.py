"""The model card of a tuned LoRA."""

from collections.abc import Mapping

from finetune.lora_folder import BASE
from finetune.model_folder import TYPES
from finetune.settings.method import LearnsFromLabels
from finetune.settings.sampler import Sampler
from finetune.training import TrainState
from pipelines.config import RunConfig
from pipelines.methods import METHODS
from pipelines.metrics_log import UNTRAINED
from pipelines.tuning import Job
from pipelines.tuning_plan import start_of

_CARD = """# LoRA tuned by {title}

On `{model}`, for {tuned_on}. Prompts: {prompts}

From the folder that the training was started in:

```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({opened})
pipeline.load_lora_weights({folder!r})
image = pipeline({prompt!r}, num_inference_steps={steps}, {arguments}).images[0]
```

These are the weights of step {best} of {last}, the best by {chosen_by}:
{reward_best:.3f}, from {reward_base:.3f} before{start}.{untrained}

Metrics are in `metrics.jsonl` and TensorBoard, images at fixed seeds in `samples/`. A higher reward
is not always a better image, so look at the evaluation's report.
"""


def model_card(job: Job, state: TrainState) -> str:
    """Return the text of the card: origin, use, and the step whose weights were kept."""
    settings, training = job.settings, job.training
    step, reward = state.best or state.validation[-1]
    start = start_of(job.run, settings, job.name)
    sampler = settings.table("sampler", Sampler)
    sources = [f"{one.weight:g} * {one.kind} of `{one.path}`" for one in job.config.rewards]
    tuned_on = " + ".join(sources) or f"the reward model in `{job.run.reward_dir}`"
    if isinstance(training.config, LearnsFromLabels):
        tuned_on = f"the labels in `{job.run.latest}`"
    return _CARD.format(
        title=f"{METHODS[job.name].title} ({job.method.paper})",
        model=settings.run.model,
        tuned_on=tuned_on,
        chosen_by="mean reward on validation seeds" if training.reward else job.chosen_by,
        prompts=" · ".join(training.prompts),
        opened=opened_by(settings.run, training.model.variant),
        folder=str(job.folder),
        prompt=training.prompts[0],
        steps=sampler.steps,
        arguments=as_code(training.model.family.stock_arguments(sampler.guidance)),
        best=step,
        last=state.step,
        reward_best=reward,
        reward_base=state.validation[0][1],
        untrained=f" So {UNTRAINED}." if step == 0 else "",
        start="" if start == BASE else f", which is where training started: `{start}`",
    )


def opened_by(config: RunConfig, variant: str | None) -> str:
    """Return the arguments of `from_pretrained` that open the run's model.

    Its type is the run's, for int8 bf16.
    """
    chosen = f", variant={variant!r}" if variant else ""
    return f"{config.model!r}{chosen}, dtype={TYPES[config.weights]}"


def as_code(arguments: Mapping[str, object]) -> str:
    """Return keyword arguments as Python writes them."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())

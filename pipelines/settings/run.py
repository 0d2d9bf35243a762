"""Settings that all stages of a run share."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from finetune.settings.model import NetworkSettings, Precision


class RunConfig(NetworkSettings, frozen=True, extra="forbid"):
    """Settings that all stages of a run share.

    `channels_last` and `compile` are for `images`, `best-of-n` and `finetune`, which run one model.
    """

    model: str = Field(default="models/emoji-sd", min_length=1)
    """Folder, or hub name, of the diffusers model that draws and is tuned."""
    image_size: int | None = Field(default=None, gt=0)
    """Side of the images that it draws and is tuned on, in pixels. Omitted, it is the model's own;
    smaller ones cost less memory and time, if the model draws them well."""
    weights: Literal["fp32", "bf16", "int8"] = "fp32"
    """Type in which the frozen weights are kept; LoRA and losses stay fp32. bf16 takes half of the
    memory, int8 (which needs torchao) a quarter for SD3 and FLUX and more for U-Nets, whose
    convolutions become bf16; both round the model's predictions."""
    precision: Precision = "fp32"
    """Arithmetic of the network; "auto" is bf16 where the device has it, which is about 1.3 times
    as fast in drawing and 1.6 in training, and fp32 elsewhere. fp16 rounds finer and is for
    GPUs."""
    prompts: dict[str, tuple[str, ...]] = Field(default={})
    """Prompts by category, used when there is no file. A category may have any name; the papers
    have count, color, composition and place."""
    prompts_file: Path | None = None
    """Text file with one prompt a line, where a line that starts with `#` is a comment; or a CSV or
    JSONL file with `prompt`, `category` and `split`, which is `train` or, for a prompt that only
    the evaluation draws, `test`. Replaces `prompts` and `focus_prompts`."""
    focus_prompts: tuple[str, ...] = ()
    """The prompts among `prompts` that get more images and that `finetune` trains on; if there
    are none, all prompts are treated alike."""
    judge: Path | None = None
    """Folder of the oracle that stands for the raters in `simulate` and for ground truth in
    `evaluate`. Without it, the embedded oracle judges images of the embedded model, and nothing
    judges images of other models."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the run. Only fine-tuning's validation images do not depend on it, so that runs can
    be compared."""
    device: str = "cpu"
    """Torch device of the models, such as `cpu` or `cuda`."""

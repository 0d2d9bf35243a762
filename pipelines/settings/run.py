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
    """Side of drawn images and training images, in pixels; omitted, the model's default. Smaller
    images need less memory and time, if the model draws them well."""
    weights: Literal["fp32", "bf16", "int8"] = "fp32"
    """Data type of the frozen weights; LoRA and losses stay fp32. bf16 needs half of the memory.
    int8 (which needs torchao) needs a quarter for SD3 and FLUX, and more for U-Nets, whose
    convolutions become bf16. Both round the model's predictions."""
    offload_encoders: bool = False
    """Keep the text encoders in main memory; they are on the device only while they encode new
    prompts, each of which is encoded once. It saves 10 GB of a GPU for SD3 and FLUX in bf16, and
    costs seconds with each batch of new prompts."""
    precision: Precision = "fp32"
    """Arithmetic of the network; "auto" is bf16 if the device supports it (about 1.3 times as fast
    in drawing and 1.6 times in training), otherwise fp32. fp16 rounds less and is for GPUs."""
    prompts: dict[str, tuple[str, ...]] = Field(default={})
    """Prompts by category, used when there is no file. A category may have any name; the papers
    have count, color, composition and place."""
    prompts_file: Path | None = None
    """Text file with one prompt a line, where a line that starts with `#` is a comment; or a CSV or
    JSONL file with `prompt`, `category` and `split`, which is `train`, or `test` for a prompt that
    only the evaluation draws. Replaces `prompts` and `focus_prompts`."""
    focus_prompts: tuple[str, ...] = ()
    """The prompts among `prompts` that get more images and that `finetune` trains on; if empty, all
    prompts are treated equally."""
    judge: Path | None = None
    """Folder of the oracle that replaces raters in `simulate` and is the ground truth in
    `evaluate`. Omitted, the embedded oracle judges images of the embedded model, and other models
    have no judge."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the run. Only the validation images of fine-tuning do not depend on it, so that runs
    can be compared."""
    device: str = "cpu"
    """Torch device of the models, such as `cpu` or `cuda`."""

"""The judge of a run: it decides which images show everything in their prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.run.model_hashes import weights_hash
from pipelines.settings.run import RunConfig
from world.prompts import Requirement

if TYPE_CHECKING:
    from torch import Tensor

    from world.oracle import Oracle

MODELS = Path(__file__).parents[2] / "models"
EMBEDDED_MODEL, EMBEDDED_JUDGE = MODELS / "emoji-sd", MODELS / "emoji-oracle"


@dataclass(frozen=True)
class Verdict:
    """Verdict of a judge on one image."""

    met: bool
    """Whether the image shows everything in its prompt."""
    readable: bool
    """Whether the judge can recognize the content of the image."""


@dataclass(frozen=True)
class OracleJudge:
    """The embedded world's oracle as a judge; no trained model learns from it."""

    oracle: "Oracle"

    def understands(self, prompt: str) -> bool:
        """Whether the prompt names an animal or a place of the embedded world."""
        return Requirement.parse(prompt).asks_for_something

    def verdicts(self, images: "Tensor", prompts: Sequence[str]) -> list[Verdict]:
        """Return the verdicts on images [B, 3, H, W] in [0, 1] for their prompts."""
        readings = zip(prompts, self.oracle.read(images), strict=True)
        return [
            Verdict(Requirement.parse(prompt).met_by(reading), reading.readable)
            for prompt, reading in readings
        ]


def open_judge(config: RunConfig) -> OracleJudge | None:
    """Return the run's judge; None if there is no judge for images of its model."""
    folder = judge_folder(config)
    if folder is None:
        return None
    from world.oracle import Oracle  # noqa: PLC0415 - loads torch

    return OracleJudge(Oracle.from_pretrained(folder))


def judge_folder(config: RunConfig) -> Path | None:
    """Return the folder of the run's judge, if any.

    The folder is `run.judge`, or else the embedded oracle if the run uses the embedded model.
    """
    if config.judge is not None:
        return config.judge
    return EMBEDDED_JUDGE if _is_embedded(Path(config.model)) else None


def _is_embedded(model: Path) -> bool:
    """Whether the folder is the embedded model, or a copy with the same UNet."""
    if model.resolve() == EMBEDDED_MODEL.resolve():
        return True
    unet, embedded = model / "unet", EMBEDDED_MODEL / "unet"
    # If the sizes differ, gigabytes need not be hashed.
    has_same_sizes = _sizes(unet) == _sizes(embedded)
    return has_same_sizes and weights_hash(str(unet)) == weights_hash(str(embedded))


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}

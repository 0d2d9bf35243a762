"""The judge of a run: who says which images show what their prompt asks for, where anyone can."""

from pathlib import Path

from pipelines.config import RunConfig
from pipelines.images import weights_hash

MODELS = Path(__file__).parents[1] / "models"
EMBEDDED_MODEL, EMBEDDED_JUDGE = MODELS / "emoji-sd", MODELS / "emoji-oracle"


def judge_of(config: RunConfig) -> Path | None:
    """Returns the folder that `run.judge` names, else the embedded oracle where the embedded model draws, else None."""
    if config.judge is not None:
        return config.judge
    return EMBEDDED_JUDGE if _is_embedded(Path(config.model)) else None


def _is_embedded(model: Path) -> bool:
    """Whether it is the embedded model's folder or has the same UNet, as its copies have."""
    if model.resolve() == EMBEDDED_MODEL.resolve():
        return True
    unet, embedded = model / "unet", EMBEDDED_MODEL / "unet"
    # Gigabytes are not hashed to learn what their size tells.
    return _sizes(unet) == _sizes(embedded) and weights_hash(str(unet)) == weights_hash(
        str(embedded)
    )


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}

"""Stage `images`: draws N pictures a prompt and notes where each one comes from.

A picture's file name says its prompt and seed, so an interrupted run finds what is there and draws only the rest.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from PIL import Image
from pydantic import BaseModel, NonNegativeFloat, PositiveInt
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of, sha256_of_files
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, read_table, write_table
from finetune.diffusion import DiffusionModel, Precision
from finetune.sampling import draw_batches
from pipelines.config import RunConfig, Settings
from pipelines.models import open_model
from pipelines.pictures import save_png
from pipelines.record import StageFolder

SEEDS_PER_RUN = 10_000_000
"""The pictures of a run with seed s have seeds from s times this on; the offsets below keep other uses apart from them."""

SCORED_SEEDS, EVALUATION_SEEDS, BEST_OF_SEEDS = 100_000, 5_000_000, 9_000_000
"""Offsets of the pictures that only the reward scores, of the evaluation, and of `best-of-n`."""


class ImagesConfig(BaseModel, frozen=True, extra="forbid"):
    """How many pictures are drawn, and how."""

    per_prompt: PositiveInt = 16
    """Pictures a prompt."""
    per_focus_prompt: PositiveInt = 96
    """Pictures of each of `run.focus_prompts`."""
    steps: PositiveInt = 20
    """Denoising steps."""
    guidance: NonNegativeFloat = 2.0
    """Classifier-free guidance scale; 1 is none."""
    eta: NonNegativeFloat = 1.0
    """Noise of the DDIM sampler: 0 is deterministic, 1 is DDPM's."""
    batch: PositiveInt = 32
    """Pictures drawn at once; they do not depend on it but for rounding."""
    precision: Precision = "fp32"
    """Arithmetic of the UNet; bf16 is about 1.7 times as fast on CPUs that have it. fp16 rounds finer and is for GPUs."""


@dataclass(frozen=True)
class Planned:
    """One picture to draw."""

    prompt: str
    seed: int

    @property
    def file_name(self) -> str:
        """Deterministic, so that an interrupted run can go on."""
        return f"{prompt_id(self.prompt)[:12]}-{self.seed:07d}.png"


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file: one a line, empty lines and lines that start with `#` left out, each prompt once.

    Raises:
        PictuneError: the file cannot be read or holds no prompt.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise PictuneError(
            f"{path}: cannot be read ({error.strerror}); give a text file with one prompt a line as PROMPTS="
        ) from error
    except UnicodeDecodeError as error:
        raise PictuneError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise PictuneError(f"{path}: holds no prompt; write one a line")
    return prompts


def prompts_of(config: RunConfig) -> dict[str, str | None]:
    """The run's prompts and the category of each; a file gives no categories.

    Raises:
        PictuneError: there is no prompt, or a focus prompt is not among the prompts.
    """
    if config.prompts_file is not None:
        return dict.fromkeys(read_prompts(config.prompts_file))
    prompts: dict[str, str | None] = {
        prompt: category for category, listed in config.prompts.items() for prompt in listed
    }
    strangers = [prompt for prompt in config.focus_prompts if prompt not in prompts]
    if strangers:
        raise PictuneError(
            f"run.focus_prompts: {strangers[0]!r} is not in run.prompts; add it there under its category"
        )
    if not prompts:
        raise PictuneError(
            "run.prompts: no prompt; list some in the settings or give a text file as PROMPTS="
        )
    return prompts


def focus_of(config: RunConfig) -> tuple[str, ...]:
    """The prompts that `finetune` trains on."""
    return (
        config.focus_prompts
        if config.focus_prompts and config.prompts_file is None
        else tuple(prompts_of(config))
    )


def seeded(prompts: Iterable[str], count: int, run_seed: int, *, offset: int = 0) -> list[Planned]:
    """`count` pictures of each prompt, with the same seeds for all prompts."""
    first = run_seed * SEEDS_PER_RUN + offset
    return [Planned(prompt, first + i) for prompt in prompts for i in range(count)]


def plan(
    prompts: Iterable[str], focus: Sequence[str], config: ImagesConfig, run_seed: int
) -> list[Planned]:
    """Every picture of the run, prompt by prompt."""
    counts = {
        prompt: config.per_focus_prompt if prompt in focus else config.per_prompt
        for prompt in prompts
    }
    return [one for prompt, count in counts.items() for one in seeded([prompt], count, run_seed)]


def weights_hash(model: str, advice: str = "give a diffusers folder as MODEL=") -> str:
    """SHA-256 over the names and hashes of the weight files of a folder, or of a hub model that was loaded before.

    Raises:
        PictuneError: there are no weight files; it ends with `advice`.
    """
    folder = Path(model)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(model, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as error:
            raise PictuneError(
                f"{model}: no such folder, nor a model of the hub on this machine; {advice}"
            ) from error
    files = [path for path in folder.rglob("*") if path.suffix == ".safetensors"]
    if not files:
        raise PictuneError(f"{model}: no weight files in this folder; {advice}")
    return sha256_of_files(folder, files)


def draw_missing(
    model: DiffusionModel,
    planned: Sequence[Planned],
    folder: Path,
    config: ImagesConfig,
    *,
    stochastic_steps: int | None = None,
    title: str = "images",
) -> int:
    """Draws the pictures that are not in `folder` yet, with a progress bar; returns how many.

    `stochastic_steps` is that of `finetune.sampling.draw_latents`.
    """
    missing = [one for one in planned if not (folder / one.file_name).exists()]
    pictures = draw_batches(
        model,
        [one.prompt for one in missing],
        seeds=[one.seed for one in missing],
        steps=config.steps,
        guidance=config.guidance,
        eta=config.eta,
        stochastic_steps=stochastic_steps,
        batch=config.batch,
    )
    names = iter(missing)
    with tqdm(
        total=len(planned),
        initial=len(planned) - len(missing),
        desc=title,
        unit="image",
        disable=None,
    ) as bar:
        for batch in pictures:
            for picture in batch:
                save_png(picture, folder / next(names).file_name)
            bar.update(len(batch))
    return len(missing)


def main(run: RunFolder, settings: Settings) -> None:
    """Draws what is missing, then writes `images.parquet` and `prompts.parquet`."""
    config = settings.table("images", ImagesConfig)
    prompts = prompts_of(settings.run)
    planned = plan(
        prompts,
        () if settings.run.prompts_file else settings.run.focus_prompts,
        config,
        settings.run.seed,
    )
    model = open_model(settings.run, precision=config.precision)
    weights = weights_hash(settings.run.model)
    inputs, outputs = (
        {"model": weights, "prompts": prompts_digest(prompts)},
        (run.images_table, run.prompts_table),
    )
    tables = ("run", "images")
    stage = StageFolder(
        run,
        settings,
        run.images_dir,
        "images",
        tables,
        inputs,
        outputs,
        goes_on_from={"[!.]*.png": tables},
    )
    _refuse_other_model(stage, weights)
    if stage.is_done and all((run.images_dir / one.file_name).exists() for one in planned):
        print(f"images: done, {len(planned)} pictures in {run.images_dir}")
        return
    with stage.working():
        drawn = draw_missing(model, planned, run.images_dir, config)
        rows = [_row(run, one, settings, weights) for one in planned]
        kept = _earlier_rows(run, {row["path"] for row in rows})
        write_table(pa.Table.from_pylist(kept + rows, schema=IMAGES), IMAGES, run.images_table)
        _write_prompts(run, prompts)
    print(f"images: {drawn} drawn, {len(kept) + len(rows)} in {run.images_table}")


def prompts_digest(prompts: Iterable[str]) -> str:
    """SHA-256 over the prompts in their order."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def _refuse_other_model(stage: StageFolder, weights: str) -> None:
    earlier = stage.earlier
    if earlier is not None and earlier.inputs.get("model") != weights:
        raise PictuneError(
            f"{stage.folder}: its pictures were drawn by other weights than the model has now; use another RUN="
        )


def _row(run: RunFolder, one: Planned, settings: Settings, weights: str) -> dict[str, object]:
    config = settings.table("images", ImagesConfig)
    path = run.images_dir / one.file_name
    with Image.open(path) as image:
        width, height = image.size
    return {
        "image_id": sha256_of(path),
        "path": str(path.relative_to(run.root)),
        "prompt_id": prompt_id(one.prompt),
        "prompt": one.prompt,
        "width": width,
        "height": height,
        "format": "png",
        "model_id": settings.run.model,
        "model_hash": weights,
        "seed": one.seed,
        "steps": config.steps,
        "guidance": config.guidance,
        "scheduler": "DDIMScheduler",
        "eta": config.eta,
        "created_at": datetime.fromtimestamp(path.stat().st_mtime, UTC),
    }


def _earlier_rows(run: RunFolder, paths: set[object]) -> list[dict[str, object]]:
    """Rows of pictures that an earlier list of prompts asked for: labels may refer to them."""
    if not run.images_table.exists():
        return []
    rows: list[dict[str, object]] = read_table(run.images_table, IMAGES).to_pylist()
    return [row for row in rows if row["path"] not in paths]


def _write_prompts(run: RunFolder, prompts: dict[str, str | None]) -> None:
    rows = [
        {"prompt_id": prompt_id(p), "prompt": p, "category": category, "split": None}
        for p, category in prompts.items()
    ]
    if run.prompts_table.exists():
        now = {row["prompt_id"] for row in rows}
        rows = [
            row
            for row in read_table(run.prompts_table, PROMPTS).to_pylist()
            if row["prompt_id"] not in now
        ] + rows
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), PROMPTS, run.prompts_table)

"""Stage `images`: draw N images of each prompt, and note where each one comes from."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
from PIL import Image

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, read_table, write_table
from finetune.sampler import Sampler
from pipelines.config import Settings
from pipelines.drawing import ImagesConfig, Planned, draw_missing, seeded
from pipelines.models import open_model, weights_hash
from pipelines.prompts import prompts_digest, prompts_of
from pipelines.record import StageFolder


def plan(
    prompts: Iterable[str], focus: Sequence[str], config: ImagesConfig, run_seed: int
) -> list[Planned]:
    """Return every image of the run, prompt by prompt."""
    planned = []
    for prompt in prompts:
        count = config.per_focus_prompt if prompt in focus else config.per_prompt
        planned += seeded([prompt], count, run_seed)
    return planned


def main(run: RunFolder, settings: Settings) -> None:
    """Draw what is missing, then write `images.parquet` and `prompts.parquet`."""
    config, sampler = settings.table("images", ImagesConfig), settings.table("sampler", Sampler)
    prompts = prompts_of(settings.run)
    focus = () if settings.run.prompts_file else settings.run.focus_prompts
    planned = plan(prompts, focus, config, settings.run.seed)
    model = open_model(settings.run, precision=config.precision)
    weights = weights_hash(settings.run.model)
    tables = ("run", "sampler", "images")
    stage = StageFolder(
        run,
        settings,
        run.images_dir,
        "images",
        tables,
        inputs={"model": weights, "prompts": prompts_digest(prompts)},
        outputs=(run.images_table, run.prompts_table),
        goes_on_from={"[!.]*.png": tables},
    )
    _refuse_other_model(stage, weights)
    if stage.is_done and all((run.images_dir / one.file_name).exists() for one in planned):
        print(f"images: done, {len(planned)} images in {run.images_dir}")
        return
    with stage.working():
        drawn = draw_missing(model, planned, run.images_dir, sampler, batch=config.batch)
        rows = [_row(run, one, settings, sampler, weights) for one in planned]
        kept = _earlier_rows(run, {row["path"] for row in rows})
        write_table(pa.Table.from_pylist(kept + rows, schema=IMAGES), IMAGES, run.images_table)
        _write_prompts(run, prompts)
    print(f"images: {drawn} drawn, {len(kept) + len(rows)} in {run.images_table}")


def _refuse_other_model(stage: StageFolder, weights: str) -> None:
    earlier = stage.earlier
    if earlier is not None and earlier.inputs.get("model") != weights:
        raise PictuneError(
            f"{stage.folder}: its images were drawn by other weights than the model has now; "
            "use another RUN="
        )


def _row(
    run: RunFolder, one: Planned, settings: Settings, sampler: Sampler, weights: str
) -> dict[str, object]:
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
        "steps": sampler.steps,
        "guidance": sampler.guidance,
        "scheduler": "DDIMScheduler",
        "eta": sampler.eta,
        "created_at": datetime.fromtimestamp(path.stat().st_mtime, UTC),
    }


def _earlier_rows(run: RunFolder, paths: set[object]) -> list[dict[str, object]]:
    """Return the rows of images of an earlier list of prompts: labels may refer to them."""
    if not run.images_table.exists():
        return []
    rows: list[dict[str, object]] = read_table(run.images_table, IMAGES).to_pylist()
    return [row for row in rows if row["path"] not in paths]


def _write_prompts(run: RunFolder, prompts: dict[str, str | None]) -> None:
    """Write the run's prompts after those of an earlier list."""
    earlier = []
    if run.prompts_table.exists():
        earlier = read_table(run.prompts_table, PROMPTS).to_pylist()
    rows = [
        {"prompt_id": prompt_id(prompt), "prompt": prompt, "category": category, "split": None}
        for prompt, category in prompts.items()
    ]
    present = {row["prompt_id"] for row in rows}
    kept = [row for row in earlier if row["prompt_id"] not in present]
    write_table(pa.Table.from_pylist(kept + rows, schema=PROMPTS), PROMPTS, run.prompts_table)

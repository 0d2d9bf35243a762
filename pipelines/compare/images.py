"""Images of several models for comparisons by people: existing images are used, missing ones drawn.

The images are kept in `comparison/images/`, named by their content. So an evaluation that draws
again removes no labeled image, and no file name tells a rater which model drew it. Their rows in
`images.parquet` have the origin `comparison`.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from data.errors import PictuneError
from data.files import locked, sha256_of, write_atomically
from data.runs import RunFolder
from data.schema import COMPARISON, IMAGES, PROMPTS, prompt_id, read_table, write_table
from finetune.model.diffusion import DiffusionModel
from finetune.settings.adapter_kinds import BASE
from finetune.settings.sampler import Sampler
from labeling_app.campaign.comparisons import ComparedImage
from pipelines.evaluate.models import (
    TunedModel,
    file_name,
    image_folder,
    mixed_model,
    tuned_models,
)
from pipelines.flags import check_word
from pipelines.run.drawing import Drawer
from pipelines.run.image_plan import DrawnBy, ImagesConfig, Planned, image_row
from pipelines.run.mixes import is_mix
from pipelines.run.model_hashes import weights_hash
from pipelines.run.models import open_model
from pipelines.run.record import STAMP, present_round, read_stamp
from pipelines.settings.config import Settings

Row = dict[str, object]
Drawing = tuple[object, ...]
"""All values that determine an image: prompt, seed, adapter, weights, eta, steps and guidance."""


@dataclass(frozen=True)
class Contender:
    """A model that is compared."""

    name: str
    """Name in the tables, such as `base`, `rwl-round2` or `second/rwl`."""
    run: RunFolder
    """The run that the model belongs to."""
    tuned: TunedModel | None
    """None for the base."""

    @cached_property
    def adapter_hash(self) -> str | None:
        """Hash of the adapter; None for the base."""
        return None if self.tuned is None else self.tuned.adapter_hash

    def evaluated(self, eta: float) -> tuple[Path, str] | None:
        """Return the folder of the model's images in its run's evaluation, and the weights' hash.

        Return None if there are no such images, or if the model was tuned again after them.
        """
        stamp = read_stamp(self.run.evaluation_dir / STAMP)
        own = BASE if self.tuned is None else self.tuned.name
        folder = image_folder(self.run, own, eta)
        if stamp is None or not folder.is_dir():
            return None
        if self.tuned is not None and stamp.inputs.get(own) != self.adapter_hash:
            return None
        return folder, stamp.inputs.get("model", "")


def contenders(run: RunFolder, names: Sequence[str]) -> list[Contender]:
    """Return the models of these names; without names, the base and the latest round's.

    Raises:
        PictuneError: a model is unknown, or there is only one model.
    """
    if not names:
        rounds = [one.run.round for one in tuned_models(run)]
        latest = [one for one in tuned_models(run) if one.run.round == max(rounds)]
        names = [BASE, *(file_name(one.name) for one in latest)]
    found = [_contender(run, name) for name in names]
    if len(found) < 2:
        raise PictuneError(
            f"compare.models: {', '.join(names)} alone; a comparison takes two models or more, "
            "name them as MODELS=base,rwl, and tune one by `make finetune METHOD=rwl` first"
        )
    return found


def _contender(run: RunFolder, name: str) -> Contender:
    other, slash, own = name.rpartition("/")
    of = RunFolder(run.root.parent / other) if slash else run
    if not of.images_table.exists():
        raise PictuneError(
            f"compare.models: {name}: {of.root} is no run with images; name a model as RUN/METHOD"
        )
    if slash:
        of = of.in_round(present_round(of))
    if is_mix(own):
        mixed = mixed_model(f"compare.models of {of.root}:", own, of)
        return Contender(f"{other}{slash}{mixed.name}", of, mixed)
    known = {BASE: None} | {file_name(one.name): one for one in tuned_models(of)}
    return Contender(name, of, known[check_word(f"compare.models of {of.root}:", own, known)])


class ImageStore:
    """The images of a run's comparisons, as files and in `images.parquet`."""

    def __init__(self, run: RunFolder, settings: Settings) -> None:
        self._run = run
        self._settings = settings
        self._sampler = settings.table("sampler", Sampler).deterministic()
        self._weights = weights_hash(settings.run.model)
        rows = read_table(run.images_table, IMAGES).to_pylist()
        self._known: dict[Drawing, str] = {
            _drawing(row): row["image_id"]
            for row in rows
            if row["adapter_strength"] in (None, 1) and (run.root / row["path"]).exists()
        }
        self._new: dict[str, Row] = {}
        self._drawn: list[Path] = []
        self._model: DiffusionModel | None = None

    def images_of(self, one: Contender, planned: Sequence[Planned]) -> list[ComparedImage]:
        """Return the model's images; a model of this run draws missing images.

        Raises:
            PictuneError: a model of another run lacks some images.
        """
        is_own = one.run.root == self._run.root
        evaluated = one.evaluated(self._sampler.eta)
        weights = self._weights if is_own or evaluated is None else evaluated[1]
        by = DrawnBy(self._settings.run.model, weights, self._sampler, one.adapter_hash)
        folder = None if evaluated is None or evaluated[1] != weights else evaluated[0]
        ids: dict[Planned, str] = {}
        missing: list[Planned] = []
        for image in planned:
            expected = _drawing(vars(image) | vars(by) | by.sampler.model_dump())
            if (known := self._known.get(expected)) is not None:
                ids[image] = known
            elif folder is not None and (folder / image.file_name).is_file():
                ids[image] = self._keep(folder / image.file_name, image, by, one.run.round)
            else:
                missing.append(image)
        if missing and not is_own:
            first = missing[0]
            raise PictuneError(
                f"{one.run.evaluation_dir}: {one.name} has no image of {first.prompt!r} with seed "
                f"{first.seed}, nor of {len(missing) - 1} more; the runs have other prompts, seeds "
                f"or samplers: make them alike and run `make evaluate RUN={one.run.root.name}`"
            )
        for image, path in self._draw(one, missing):
            ids[image] = self._keep(path, image, by, one.run.round)
            self._drawn.append(path)
        return [ComparedImage(ids[p], p.prompt, p.seed, one.name) for p in planned]

    def write(self, categories: Mapping[str, str | None]) -> None:
        """Add new rows to `images.parquet` and `prompts.parquet`; existing rows stay.

        Prompts without a category get it from the comparison.
        """
        self._run.labels_dir.mkdir(parents=True, exist_ok=True)
        with locked(self._run.import_lock):
            rows = read_table(self._run.prompts_table, PROMPTS).to_pylist()
            known = {row["prompt"] for row in rows}
            named = [
                row | {"category": row["category"] or categories.get(row["prompt"])} for row in rows
            ] + [
                {"prompt_id": prompt_id(text), "prompt": text, "category": category, "split": None}
                for text, category in categories.items()
                if text not in known
            ]
            if named != rows:
                write_table(
                    pa.Table.from_pylist(named, schema=PROMPTS), PROMPTS, self._run.prompts_table
                )
            table = read_table(self._run.images_table, IMAGES)
            new = self._new.keys() - set(table["image_id"].to_pylist())
            added = [row for image_id, row in self._new.items() if image_id in new]
            if added:
                table = pa.concat_tables([table, pa.Table.from_pylist(added, schema=IMAGES)])
                write_table(table, IMAGES, self._run.images_table)
        for path in self._drawn:
            path.unlink()
        for folder in {path.parent for path in self._drawn}:
            with suppress(OSError):  # from an interrupted attempt
                folder.rmdir()
        self._drawn, self._new = [], {}

    def _draw(self, one: Contender, missing: Sequence[Planned]) -> Iterable[tuple[Planned, Path]]:
        """Draw images into the model's own folder, so that an interrupted run continues there."""
        if not missing:
            return []
        images = self._settings.table("images", ImagesConfig)
        if self._model is None:
            self._model = open_model(self._settings.run)
        model = self._model
        drawn_by = (one.adapter_hash or BASE, self._weights, self._sampler.model_dump_json())
        digest = hashlib.sha256(" ".join(drawn_by).encode()).hexdigest()[:12]
        folder = self._run.comparison_dir / f"drawing-{digest}"
        if one.tuned is not None:
            one.tuned.saved.load(model)
        with model.adapter_off() if one.tuned is None else nullcontext():
            Drawer(model, images.batch).draw_missing(missing, folder, self._sampler, title=one.name)
        return [(image, folder / image.file_name) for image in missing]

    def _keep(self, path: Path, image: Planned, by: DrawnBy, number: int) -> str:
        image_id = sha256_of(path)
        place = self._run.comparison_dir / "images" / f"{image_id}.png"
        if not place.exists():
            with write_atomically(place) as temporary:
                shutil.copyfile(path, temporary)
        row = image_row(self._run.in_round(number), place, image, by)
        self._new.setdefault(image_id, row | {"origin": COMPARISON})
        return image_id


def _drawing(row: Mapping[str, object]) -> Drawing:
    """Return the columns of a row that determine an image, in the table's precision."""
    names = ("prompt", "seed", "adapter_hash", "model_hash", "eta", "steps", "guidance")
    values = (row[name] for name in names)
    return tuple(round(one, 4) if isinstance(one, float) else one for one in values)

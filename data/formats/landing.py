"""Import of records into a run: images, the tables of images and prompts, tasks and labels.

An import adds all records or none. Images wait in a folder beside the run's folder until every row
is read and checked. Then one transaction of the store adds tasks and labels, and moves the files to
the run before it commits. Importing the same record again adds nothing.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from data.errors import PictuneError
from data.feedback import NewTask
from data.files import locked, sync_files, waiting_folder, write_atomically
from data.formats.records import BadRow, Record, Row, SourceImage, SourceLabel, check_texts, fact
from data.image_files import IMAGE_FORMATS, ImageFault, decode_image
from data.kinds.kind import Answer, InvalidAnswer
from data.kinds.registry import KINDS, check_answer
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, read_table, write_table
from data.store.feedback_store import FeedbackStore
from data.store.imported import Added, ImportedLabel
from data.store.plan.planning import task_id_of

TableRow = dict[str, Any]
WAITING_FOLDER_PREFIX = ".import-"
"""Prefix of the folders where images wait."""
MOST_RATERS = 1000
"""Largest overlap of one task in the store."""
LONGEST_NAME = 200
"""Longest name of a rater in the store, in characters."""
MOST_BAD = 20
"""Largest number of bad rows that an error lists; further bad rows are only counted."""


@dataclass(frozen=True)
class Imported:
    """Numbers of images, tasks and labels that an import added."""

    images: int
    prompts: int
    feedback: Added


def import_records(
    records: Iterable[Record | BadRow],
    source_format: str,
    run: RunFolder,
    store: FeedbackStore,
    *,
    now: datetime,
) -> Imported:
    """Read all records, then add the new ones to the run and its feedback store.

    Raises:
        PictuneError: a row is wrong (named by file, row and column) or a file cannot be written;
            nothing was added.
    """
    with read_records(records, source_format, run, now=now) as batch:
        batch.refuse_bad()
        return batch.add_to(store)


@contextmanager
def read_records(
    records: Iterable[Record | BadRow], source_format: str, run: RunFolder, *, now: datetime
) -> Iterator["_Batch"]:
    """Read all records; at the end of the block, remove the images that were not added to the run.

    Args:
        records: the records, read one by one.
        source_format: name of their format.
        run: the run that they are for; before they are added, nothing in it changes.
        now: stands for times that the source does not know.
    """
    # For a new run it is beside the run, which a refused import must not leave behind.
    place = run.root if run.root.exists() else run.root.parent
    with waiting_folder(place, WAITING_FOLDER_PREFIX, run.root.parent) as waiting:
        batch = _Batch(run, source_format, waiting, now)
        for record in records:
            batch.add(record)
        yield batch


class _Batch:
    """Images, prompts, tasks and labels of one import, as far as it was read."""

    def __init__(self, run: RunFolder, source_format: str, waiting: Path, now: datetime) -> None:
        self.labels: list[ImportedLabel] = []
        self.new_images: dict[str, TableRow] = {}
        self.new_prompts: dict[str, TableRow] = {}
        self._run = run
        self._format = source_format
        self._waiting = waiting
        self._now = now
        self._images = _rows(run.images_table, IMAGES, "image_id")
        self._prompts = _rows(run.prompts_table, PROMPTS, "prompt_id")
        self._tasks: dict[str, NewTask] = {}
        self._answers: Counter[str] = Counter()
        self._by_rater: Counter[tuple[str, str | None]] = Counter()
        self._seen: set[str] = set()
        self.rows = 0
        """Rows that were read, good ones and bad."""
        self.n_bad = 0
        self.bad: list[str] = []
        """Faults of the first `MOST_BAD` bad rows."""

    def add(self, record: Record | BadRow) -> None:
        """Add one record, or note what is wrong with it."""
        self.rows += 1
        try:
            if isinstance(record, BadRow):
                raise record
            self._add(record)
        except BadRow as error:
            self.n_bad += 1
            if self.n_bad <= MOST_BAD:
                self.bad.append(error.fault)

    def refuse_bad(self) -> None:
        """Raise the error on the bad rows, if there are any.

        Raises:
            PictuneError: names the first one.
        """
        if self.n_bad == 1:
            raise BadRow(self.bad[0])
        if self.n_bad:
            raise PictuneError(
                f"{self.bad[0]}, one of {self.n_bad} bad rows; fix or remove them, "
                "or leave them out by SKIP_BAD=1 (--skip-bad); nothing was imported"
            )

    def add_to(self, store: FeedbackStore) -> Imported:
        """Add what is new to the store and to the run, all or nothing."""
        tasks = list(self._tasks.values())
        added = store.import_labels(tasks, self.labels, finish=self.put_in_place)
        return Imported(len(self.new_images), len(self.new_prompts), added)

    def _add(self, record: Record) -> None:
        check_texts(record)
        key = prompt_id(record.prompt)
        new_images: dict[str, TableRow] = {}
        image_ids = tuple(self._image(record, one, key, new_images) for one in record.images)
        task = None
        if record.kind is not None:
            named = {"kind": record.kind, "prompt": record.prompt, "image_ids": image_ids}
            with _faults_named(record.row, record.images[-1].column):
                task = NewTask.model_validate(named | dict(record.task))
        answers = [self._answer(record.row, one, task) for one in record.labels if task]
        # Nothing of a bad row may stay, so all that can be wrong is behind us here.
        self.new_images |= new_images
        if key not in self._prompts and key not in self.new_prompts:
            self.new_prompts[key] = {
                "prompt_id": key,
                "prompt": record.prompt,
                "category": record.category,
                "split": record.split,
            }
        if task is None:
            return
        task_id = task_id_of(task)
        given = zip(record.labels, answers, strict=True)
        labels = [self._label(label, answer, task, task_id) for label, answer in given]
        new = [label for label in labels if label is not None]
        self.labels += new
        self._answers[task_id] += len(new)
        wanted = self._tasks.setdefault(task_id, task)
        # as many raters as it has, so that nobody else is asked
        overlap = min(max(self._answers[task_id], 1), MOST_RATERS)
        self._tasks[task_id] = wanted.model_copy(update={"overlap": overlap})

    def put_in_place(self) -> None:
        """Move the images to the run and write its tables, `images.parquet` last.

        After an error the moved images are removed. The tables are read again, as another import
        may have written them since; its rows stay.
        """
        moved: list[Path] = []
        self._run.images_dir.mkdir(parents=True, exist_ok=True)
        with locked(self._run.import_lock):
            images = _rows(self._run.images_table, IMAGES, "image_id")
            prompts = _rows(self._run.prompts_table, PROMPTS, "prompt_id")
            try:
                for image_id in self.new_images.keys() - images.keys():
                    path = self._run.root / self.new_images[image_id]["path"]
                    moved.append((self._waiting / path.name).replace(path))
                sync_files(self._run.images_dir, moved)
                for known, new, schema, path in (
                    (prompts, self.new_prompts, PROMPTS, self._run.prompts_table),
                    (images, self.new_images, IMAGES, self._run.images_table),
                ):
                    # what is known stays as it is, and before what is new
                    rows = list((known | new | known).values())
                    write_table(pa.Table.from_pylist(rows, schema=schema), schema, path)
            except BaseException:
                for path in moved:
                    path.unlink(missing_ok=True)
                raise

    def _image(
        self, record: Record, image: SourceImage, prompt_key: str, new: dict[str, TableRow]
    ) -> str:
        """Return the id of an image, which is among the `new` ones of its record if it is new."""
        row = record.row
        content = image.content.read_bytes() if isinstance(image.content, Path) else image.content
        image_id = hashlib.sha256(content).hexdigest()
        known = self._images.get(image_id) or self.new_images.get(image_id) or new.get(image_id)
        if known is None:
            new[image_id] = self._new_image(row, image, content, image_id) | {
                "prompt_id": prompt_key,
                "prompt": record.prompt,
            }
        elif known["prompt_id"] != prompt_key:
            raise row.bad(
                image.column,
                f"the same image stands under another prompt, {known['prompt']!r}; "
                "an image has one prompt",
            )
        return image_id

    def _new_image(self, row: Row, image: SourceImage, content: bytes, image_id: str) -> TableRow:
        try:
            decoded = decode_image(io.BytesIO(content))
        except ImageFault as error:
            raise row.bad(image.column, str(error)) from error
        assert decoded.format is not None  # it is one of the formats allowed
        suffix = IMAGE_FORMATS[decoded.format]
        path = self._run.images_dir / f"{image_id}.{suffix}"
        with write_atomically(self._waiting / path.name, sync=False) as temporary:
            temporary.write_bytes(content)
        known = {field.name: fact(row, image.facts.get(field.name), field) for field in IMAGES}
        return known | {
            "image_id": image_id,
            "path": path.relative_to(self._run.root).as_posix(),
            "width": decoded.width,
            "height": decoded.height,
            "format": suffix,
            "created_at": image.facts.get("created_at") or self._now,
        }

    def _answer(self, row: Row, label: SourceLabel, task: NewTask) -> Answer:
        longest = LONGEST_NAME
        if not label.submission_id:  # `_rater_name` puts the format before the name
            longest -= len(f"{self._format}  (answer {MOST_RATERS})")
        if label.rater and len(label.rater) > longest:
            reason = f"the rater's name has {len(label.rater)} characters, more than {longest}"
            raise row.bad("(rater)", reason)
        with _faults_named(row, "answer"):
            kind = KINDS[task.kind]
            answer: Answer = kind.from_source(label.answer, task.image_ids, label.remarks)
            check_answer(answer, task.kind, task.image_ids)
            return answer

    def _label(
        self, label: SourceLabel, answer: Answer, task: NewTask, task_id: str
    ) -> ImportedLabel | None:
        """Return the label with its rater and identity; None for a copy of an earlier one."""
        shown_order = label.shown_order or tuple(range(len(task.image_ids)))
        submission_id = label.submission_id
        if not submission_id:
            moment = label.submitted_at and label.submitted_at.isoformat()
            who_and_what = [self._format, task_id, label.rater, answer.model_dump()]
            identity: list[Any] = [*who_and_what, shown_order, moment, label.number]
            if label.rater is None:  # equal anonymous answers are by different raters
                identity.append(self._by_rater[task_id, None])
            digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
            submission_id = f"{self._format}-{digest[:40]}"
        if submission_id in self._seen:
            return None
        self._seen.add(submission_id)
        self._by_rater[task_id, label.rater] += 1
        return ImportedLabel(
            submission_id=submission_id,
            rater=self._rater_name(label, task_id),
            source="imported",
            task=task,
            answer=answer,
            shown_order=shown_order,
            submitted_at=label.submitted_at,
            app_version=label.app_version,
        )

    def _rater_name(self, label: SourceLabel, task_id: str) -> str:
        """Return the name under which the label's rater is added to the store.

        The store keeps one answer of a rater to a task. Further answers in the same source must not
        be lost, so they count as other raters'.
        """
        number = self._by_rater[task_id, label.rater]
        name = label.rater or f"unknown {number}"
        if not label.submission_id:
            name = f"{self._format} {name}"
            if label.rater and number > 1:
                name = f"{name} (answer {number})"
        return name


def _rows(path: Path, schema: pa.Schema, key: str) -> dict[str, TableRow]:
    """Return the rows of a table by their id; none where there is no table yet."""
    rows: list[TableRow] = read_table(path, schema).to_pylist() if path.exists() else []
    return {row[key]: row for row in rows}


@contextmanager
def _faults_named(row: Row, column: str) -> Iterator[None]:
    """Turn an error about a task or an answer into one that names row and column."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = str(first["loc"][0]) if first["loc"] else column
        raise row.bad(named, str(first["msg"]).removeprefix("Value error, ")) from error
    except InvalidAnswer as error:
        raise row.bad("answer", str(error)) from error

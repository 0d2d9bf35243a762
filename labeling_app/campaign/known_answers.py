"""Questions with known answers: training items, answered with feedback, and hidden gold tasks.

Both are CSV files in UTF-8 with a header. `images` names one image or several, by id or by their
path in the run, separated by `|`. `answer` is good, bad, skip or unsafe for one image. For several
it has their ranks, separated by `|`, with `?` for can't judge. Training files also have a column
`explanation`.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from data.errors import PictuneError
from data.feedback import NewTask, Task
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.registry import agrees_with_gold, check_answer
from data.kinds.verdict import BinaryAnswer
from labeling_app.campaign.tasks import LARGEST_RANKING, ImageRow

GOLD_OVERLAP = 1000
"""Overlap of gold tasks, large enough for every rater to get every task."""

SEPARATOR = "|"


@dataclass(frozen=True)
class TrainingItem:
    """Question with its known answer; as a training item its answers are never labels."""

    task: Task
    answer: Answer
    explanation: str

    def is_correct(self, answer: Answer) -> bool:
        """Whether an answer is right: the same verdict, or the right order of all image pairs.

        Raises:
            InvalidAnswer: the answer does not fit the question.
        """
        check_answer(answer, self.task.kind, self.task.image_ids)
        return agrees_with_gold(answer, self.answer) is True


def read_training(path: Path, images: Mapping[str, ImageRow]) -> tuple[TrainingItem, ...]:
    """Return the training items of a file.

    Args:
        path: a CSV file, as the module describes it.
        images: the campaign's images, by id and by path.

    Raises:
        PictuneError: the file cannot be read, or a row cannot be understood.
    """
    return tuple({item.task.task_id: item for item in _read(path, images)}.values())


def read_gold(path: Path, images: Mapping[str, ImageRow]) -> list[NewTask]:
    """Return the gold tasks of a file; arguments and errors as of `read_training`."""
    return [
        NewTask(
            kind=item.task.kind,
            prompt=item.task.prompt,
            image_ids=item.task.image_ids,
            overlap=GOLD_OVERLAP,
            gold=item.answer,
            gold_source=path.name,
        )
        for item in _read(path, images)
    ]


def _read(path: Path, images: Mapping[str, ImageRow]) -> Iterator[TrainingItem]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _rows(file, str(path), images)
    except (OSError, UnicodeDecodeError) as error:
        raise PictuneError(f"{path}: cannot be read ({error}); name a CSV file in UTF-8") from error


def _rows(file: Iterable[str], name: str, images: Mapping[str, ImageRow]) -> Iterator[TrainingItem]:
    try:
        reader = csv.DictReader(file)
        missing = {"images", "answer"} - set(reader.fieldnames or ())
        if missing:
            raise PictuneError(
                f"{name}: has no column {', '.join(sorted(missing))}; "
                "begin it with the line images,answer,explanation"
            )
        for row in reader:
            yield _parse(f"{name}:{reader.line_num}", row, images)
    except csv.Error as error:
        raise PictuneError(f"{name}: cannot be read ({error}); name a CSV file in UTF-8") from error


def _parse(
    place: str, row: Mapping[str, str | None], images: Mapping[str, ImageRow]
) -> TrainingItem:
    names = [name.strip() for name in (row["images"] or "").split(SEPARATOR)]
    unknown = [name for name in names if name not in images]
    if unknown:
        raise PictuneError(
            f"{place}: images: {', '.join(unknown) or 'none'} not of this run; "
            "give ids or paths of its images.parquet"
        )
    rows = [images[name] for name in names]
    image_ids = tuple(image.image_id for image in rows)
    if (
        len({image.prompt for image in rows}) > 1
        or len(set(image_ids)) < len(image_ids)
        or len(image_ids) > LARGEST_RANKING
    ):
        raise PictuneError(
            f"{place}: images: not up to {LARGEST_RANKING} different images of one prompt; "
            "rank only such together"
        )
    answer = _parse_answer(place, (row["answer"] or "").strip(), image_ids)
    name = "\n".join([answer.kind, *image_ids, answer.model_dump_json()])
    task_id = hashlib.sha256(name.encode()).hexdigest()
    task = Task(task_id, answer.kind, rows[0].prompt, image_ids)
    return TrainingItem(task, answer, row.get("explanation") or "")


def _parse_answer(place: str, text: str, image_ids: tuple[str, ...]) -> Answer:
    try:
        if len(image_ids) == 1:
            return BinaryAnswer.model_validate({"verdict": text})
        ranks = [None if rank.strip() == "?" else int(rank) for rank in text.split(SEPARATOR)]
        return RankingAnswer(ranks=dict(zip(image_ids, ranks, strict=True)))
    except (ValidationError, ValueError) as error:
        wanted = f"{len(image_ids)} ranks from 1, such as 1|2|2, ? for can't judge"
        if len(image_ids) == 1:
            wanted = "good, bad, skip or unsafe"
        raise PictuneError(f"{place}: answer: {text!r} is not {wanted}; fix that row") from error

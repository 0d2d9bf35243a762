"""The feedback store: who was asked what and what they answered. The only place where labels are kept.

Guarantees: a method that returns has its effect on disk; labels are only ever added; a claim never lets live labels and live leases of a
task exceed its overlap (an answer that comes after its lease has run out is still accepted, flagged, and may be one too many); a rater is
never given a task twice unless the answer was undone. One process with any number of threads may share a store.
"""

import hashlib
import random
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Self

import sqlalchemy as sa

from data.database import Database
from data.errors import PictuneError
from data.feedback import (
    Claim,
    InvalidAnswer,
    LeaseConfig,
    NewTask,
    NotFound,
    Progress,
    Receipt,
    Source,
    Submission,
    Task,
    TaskKind,
    check_answer,
)
from data.queries import (
    Row,
    add_to_live_count,
    find_row,
    free_task,
    has_place,
    held_lease,
    insert_rows,
    is_over,
    lease_of,
    load_task,
    lock_task,
    median_seconds,
    release,
    retire_live,
)
from data.schema import prompt_id
from data.tables import labels, leases, prompts, raters, settings, task_images, tasks


def utc_now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


class FeedbackStore:
    """Tasks, leases and labels in one SQL database; made by `FeedbackStore.open`."""

    def __init__(self, database: Database, clock: Callable[[], datetime], rng: random.Random, lease: LeaseConfig) -> None:
        self.database = database
        self._clock = clock
        self._rng = rng
        self._lease = lease
        with database.write() as connection:
            self._salt = self._setting(connection, "salt")
            self._order_seed = self._setting(connection, "order_seed")

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
        lease: LeaseConfig = LeaseConfig(),  # noqa: B008 - frozen
    ) -> "FeedbackStore":
        """Opens the store at an SQLAlchemy URL (`sqlite:///FILE`), creating or migrating its tables.

        `rng` draws the order in which a task's images are shown and, when the store is new, its salt and order seed; by default the
        operating system's randomness, which nobody can predict.

        Raises:
            PictuneError: the URL is wrong, or the database cannot be opened or is of a newer version.
        """
        database = Database(url)
        database.migrate()
        return cls(database, clock, rng or random.SystemRandom(), lease)

    def close(self) -> None:
        """Closes the store's connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def public_rater_id(self, rater_id: str) -> str:
        """The salted hash under which a rater appears in exports."""
        return hashlib.sha256(f"{self._salt}:{rater_id}".encode()).hexdigest()[:32]

    def add_rater(self, name: str, *, source: Source = "human") -> str:
        """Adds a rater, or finds the one of this name and source; returns the rater's id."""
        if not 1 <= len(name.strip()) <= 200:
            raise PictuneError("rater name: empty or longer than 200 characters; give a shorter one")
        rater_id = str(uuid.UUID(hashlib.sha256(f"{self._salt}:{source}:{name.strip()}".encode()).hexdigest()[:32], version=5))
        with self.database.write() as connection:
            if find_row(connection, raters, rater_id) is None:
                row = {"rater_id": rater_id, "name": name.strip(), "source": source, "joined_at": self._clock()}
                connection.execute(sa.insert(raters).values(row))
        return rater_id

    def add_tasks(self, new_tasks: Iterable[NewTask]) -> int:
        """Adds tasks, all or none; returns how many are new.

        A task of the same kind about the same images is the same task, in whatever order they stand, and keeps its first settings.
        """
        with self.database.write() as connection:
            now = self._clock()
            known_tasks = set(connection.scalars(sa.select(tasks.c.task_id)))
            known_prompts = set(connection.scalars(sa.select(prompts.c.prompt_id)))
            wanted = {_task_id(task): task for task in new_tasks}
            added = {task_id: task for task_id, task in wanted.items() if task_id not in known_tasks}
            new_prompts = {prompt_id(task.prompt): task.prompt for task in added.values()}
            insert_rows(
                connection, prompts, [{"prompt_id": key, "prompt": text} for key, text in new_prompts.items() if key not in known_prompts]
            )
            insert_rows(connection, tasks, [self._task_row(task_id, task, now) for task_id, task in added.items()])
            images = [
                {"task_id": task_id, "position": position, "image_id": image_id}
                for task_id, task in added.items()
                for position, image_id in enumerate(task.image_ids)
            ]
            insert_rows(connection, task_images, images)
        return len(added)

    def claim(self, rater_id: str, *, kind: TaskKind | None = None) -> Claim | None:
        """Holds a task for the rater, in one transaction; None when there is nothing (left) for this rater.

        A task that the rater holds already is given again, with its hold renewed. Otherwise the task of highest priority with a place
        left is given, in random order within a priority, and its images are put into a random order.

        Raises:
            NotFound: no such rater.
        """
        with self.database.write() as connection:
            now = self._clock()
            if find_row(connection, raters, rater_id) is None:
                raise NotFound(f"rater {rater_id}: not known; sign in again")
            held = held_lease(connection, rater_id, kind, now)
            if held is not None:
                task = load_task(connection, held.task_id)
                return Claim(task, self._extend(connection, task, rater_id, now), tuple(held.shown_order), held.shown_at)
            task_id = free_task(connection, rater_id, kind, now)
            if task_id is None:
                return None
            task = load_task(connection, task_id)
            shown_order = list(range(len(task.image_ids)))
            self._rng.shuffle(shown_order)
            expires_at = self._lease_end(connection, task.kind, now)
            connection.execute(sa.delete(leases).where(lease_of(task_id, rater_id)))
            lease = {"task_id": task_id, "rater_id": rater_id, "shown_order": shown_order, "shown_at": now, "expires_at": expires_at}
            connection.execute(sa.insert(leases).values(lease))
            return Claim(task, expires_at, tuple(shown_order), now)

    def renew(self, rater_id: str, task_id: str) -> datetime:
        """Prolongs the rater's hold on a task; returns when it will run out.

        Raises:
            NotFound: the rater does not hold the task: it was never claimed or is answered, or the hold ran out and others have the place.
        """
        with self.database.write() as connection:
            now = self._clock()
            task = lock_task(connection, task_id)
            lease = connection.execute(sa.select(leases).where(lease_of(task_id, rater_id))).one_or_none()
            if lease is None or lease.expires_at is None:
                raise NotFound(f"task {task_id}: not held by this rater; claim a task first")
            if lease.expires_at <= now and not has_place(connection, task_id, now):
                raise NotFound(f"task {task_id}: the hold has run out and others have taken the place; an answer is still accepted")
            return self._extend(connection, task, rater_id, now)

    def submit(self, submission: Submission) -> Receipt:
        """Saves an answer; when this returns it is on disk. The same submission again gives the same receipt and changes nothing.

        Another submission of the same rater for the same task is an edit: a new revision that takes the place of the one before.

        Raises:
            NotFound: no such task or rater.
            InvalidAnswer: the answer does not fit the task, the task was never given to the rater, or the submission's id was used before
                for another task or rater.
        """
        with self.database.write() as connection:
            now = self._clock()
            task = lock_task(connection, submission.task_id)
            received = connection.execute(sa.select(labels).where(labels.c.submission_id == submission.submission_id)).one_or_none()
            if received is not None:
                return _receipt_of_earlier(received, submission)
            check_answer(submission.answer, task.kind, task.image_ids)
            lease = connection.execute(sa.select(leases).where(lease_of(task.task_id, submission.rater_id))).one_or_none()
            if lease is None and find_row(connection, raters, submission.rater_id) is None:
                raise NotFound(f"rater {submission.rater_id}: not known; sign in again")
            if lease is None:
                raise InvalidAnswer(f"task {task.task_id}: was never given to this rater; claim it first")
            live = retire_live(connection, task.task_id, submission.rater_id)
            release(connection, task.task_id, submission.rater_id)
            if not live:
                add_to_live_count(connection, task.task_id, 1)
            return self._add_revision(connection, lease, now, _values_of(submission) | {"lease_late": not live and is_over(lease, now)})

    def undo(self, rater_id: str) -> Task | None:
        """Takes back the rater's last live label by a revision without an answer, and gives the task to the rater again; None without one.

        Raises:
            NotFound: no such rater.
        """
        with self.database.write() as connection:
            now = self._clock()
            if find_row(connection, raters, rater_id) is None:
                raise NotFound(f"rater {rater_id}: not known; sign in again")
            query = sa.select(labels).where(labels.c.rater_id == rater_id, labels.c.is_live).order_by(labels.c.sequence.desc()).limit(1)
            last = connection.execute(query).one_or_none()
            if last is None:
                return None
            task = lock_task(connection, last.task_id)
            retire_live(connection, task.task_id, rater_id)
            add_to_live_count(connection, task.task_id, -1)
            lease = connection.execute(sa.select(leases).where(lease_of(task.task_id, rater_id))).one()
            # one undo per label, so this id is as unique as the label's
            taken_back = {"submission_id": f"undo-{last.label_id}", "kind": task.kind, "is_live": False, "lease_late": False}
            self._add_revision(connection, lease, now, taken_back)
            connection.execute(sa.update(leases).where(lease_of(task.task_id, rater_id)).values(shown_at=now))
            self._extend(connection, task, rater_id, now)
            return task

    def progress(self, rater_id: str | None = None) -> Progress:
        """How far the labeling is, and how many live labels are by this rater."""
        finished = sa.case((tasks.c.n_live < tasks.c.overlap, tasks.c.n_live), else_=tasks.c.overlap)
        mine = sa.select(sa.func.count()).where(labels.c.rater_id == rater_id, labels.c.is_live)
        with self.database.read() as connection:
            done, total = connection.execute(sa.select(sa.func.sum(finished), sa.func.sum(tasks.c.overlap))).one()
            count = connection.scalar(mine) if rater_id is not None else 0
        return Progress(mine=count or 0, done=int(done or 0), total=int(total or 0))

    def _setting(self, connection: sa.Connection, name: str) -> str:
        value = connection.scalar(sa.select(settings.c.value).where(settings.c.name == name))
        if value is None:
            value = f"{self._rng.getrandbits(128):032x}"
            connection.execute(sa.insert(settings).values(name=name, value=value))
        return str(value)

    def _task_row(self, task_id: str, task: NewTask, now: datetime) -> dict[str, object]:
        order = hashlib.sha256(f"{self._order_seed}:{task_id}".encode()).digest()[:8]
        return {
            "task_id": task_id,
            "kind": task.kind,
            "prompt_id": prompt_id(task.prompt),
            "overlap": task.overlap,
            "n_live": 0,
            "priority": task.priority,
            "order_key": int.from_bytes(order, "big", signed=True),
            "gold_json": task.gold_json,
            "created_at": now,
        }

    def _lease_end(self, connection: sa.Connection, kind: TaskKind, now: datetime) -> datetime:
        length_s = max(self._lease.shortest_s, self._lease.times_median * median_seconds(connection, kind))
        return now + timedelta(seconds=length_s)

    def _extend(self, connection: sa.Connection, task: Task, rater_id: str, now: datetime) -> datetime:
        expires_at = self._lease_end(connection, task.kind, now)
        connection.execute(sa.update(leases).where(lease_of(task.task_id, rater_id)).values(expires_at=expires_at))
        return expires_at

    def _add_revision(self, connection: sa.Connection, lease: Row, now: datetime, values: dict[str, object]) -> Receipt:
        earlier = sa.select(sa.func.max(labels.c.revision)).where(labels.c.task_id == lease.task_id, labels.c.rater_id == lease.rater_id)
        revision = (connection.scalar(earlier) or 0) + 1
        label_id = _uuid7(now, str(values["submission_id"]))
        row = {"task_id": lease.task_id, "rater_id": lease.rater_id, "shown_order": lease.shown_order, "shown_at": lease.shown_at}
        row |= {"label_id": label_id, "revision": revision, "submitted_at": now}
        connection.execute(sa.insert(labels).values(row | values))
        return Receipt(label_id, revision, created=True)


def _task_id(task: NewTask) -> str:
    return hashlib.sha256("\n".join([task.kind, *sorted(task.image_ids)]).encode()).hexdigest()


def _uuid7(moment: datetime, name: str) -> str:
    """A UUID version 7 (RFC 9562) of the moment; its random bits are a hash of `name`, so that the same history gives the same ids."""
    milliseconds = int(moment.timestamp() * 1000) & (2**48 - 1)
    bits = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10], "big")
    value = (milliseconds << 80) | (0x7 << 76) | ((bits >> 62 & 0xFFF) << 64) | (0b10 << 62) | (bits & (2**62 - 1))
    return str(uuid.UUID(int=value))


def _values_of(submission: Submission) -> dict[str, object]:
    same = submission.model_dump(
        include={"submission_id", "time_on_task_ms", "input_mode", "session_id", "app_version", "guideline_version"}
    )
    return same | {"kind": submission.answer.kind, "answer_json": submission.answer.model_dump_json(), "is_live": True}


def _receipt_of_earlier(received: Row, submission: Submission) -> Receipt:
    if (received.task_id, received.rater_id) != (submission.task_id, submission.rater_id):
        raise InvalidAnswer(f"submission {submission.submission_id}: was used for another task or rater; give each answer an id of its own")
    return Receipt(received.label_id, received.revision, created=False)

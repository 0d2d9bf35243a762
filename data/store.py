"""The feedback store: who was asked what and what they answered. The only place where labels are kept.

Guarantees: a method that returns has its effect on disk; labels are only ever added; a claim never lets live labels and live leases of a
task exceed its overlap (an answer that comes after its lease has run out is still accepted, flagged, and may be one too many); a rater is
never given a task twice unless the answer was undone, nor one with an image that was reported (`data.reports`). One process with any number
of threads may share a store.

Each task has its overlap of places for people, and as many for simulated raters. Imported labels fill places of both.
"""

import hashlib
import random
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import sqlalchemy as sa

from data.database import Database
from data.errors import PictuneError
from data.feedback import (
    ChecksConfig,
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
from data.ids import uuid7
from data.imported import Added, ImportedLabel, insert_labels, new_labels
from data.planning import add_repeat, set_priorities, update_plan
from data.queries import (
    Row,
    Totals,
    add_to_live_count,
    count_live,
    count_totals,
    end_lease,
    find_label,
    find_lease,
    find_row,
    free_task,
    give_lease,
    has_place,
    held_lease,
    insert_label,
    insert_rows,
    is_over,
    latest_live,
    load_task,
    lock_task,
    median_seconds,
    next_revision,
    repeatable_tasks,
    retire_live,
)
from data.raters import Raters, find_named
from data.reports import Reports, open_reports, withdraw_reports, withheld_tasks
from data.schema import prompt_id
from data.tables import prompts, raters, settings, task_images, tasks


def utc_now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


class FeedbackStore:
    """Tasks, leases and labels in one SQL database; made by `FeedbackStore.open`."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        rng: random.Random,
        lease: LeaseConfig,
        checks: ChecksConfig,
    ) -> None:
        self.database = database
        self.raters = Raters(database, clock)
        self.reports = Reports(database, clock)
        self._clock = clock
        self._rng = rng
        self._lease = lease
        self._checks = checks
        self._totals: dict[Source, Totals] = {}
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
        checks: ChecksConfig = ChecksConfig(),  # noqa: B008 - frozen
    ) -> "FeedbackStore":
        """Opens the store at an SQLAlchemy URL (`sqlite:///FILE`), creating or migrating its tables.

        `rng` draws the order in which a task's images are shown, which claims are given a task that checks the rater (`checks`) and,
        when the store is new, its salt and order seed; by default the operating system's randomness, which nobody can predict.

        Raises:
            PictuneError: the URL is wrong, or the database cannot be opened or is of a newer version.
        """
        database = Database(url)
        database.migrate()
        return cls(database, clock, rng or random.SystemRandom(), lease, checks)

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

    def rater_id_of(self, source: Source, name: str) -> str:
        """The store's own id of the rater of this name and source, known or not."""
        return str(
            uuid.UUID(
                hashlib.sha256(f"{self._salt}:{source}:{name}".encode()).hexdigest()[:32], version=5
            )
        )

    def add_rater(self, name: str, *, source: Source = "human") -> str:
        """Adds a rater, or finds the one of this name and source, see `data.raters.find_named`; returns the rater's id."""
        if not 1 <= len(name.strip()) <= 200:
            raise PictuneError(
                "rater name: empty or longer than 200 characters; give a shorter one"
            )
        rater_id = self.rater_id_of(source, name.strip())
        with self.database.write() as connection:
            known = find_named(connection, name, source)
            if known is not None:
                return str(known.rater_id)
            row = {
                "rater_id": rater_id,
                "name": name.strip(),
                "source": source,
                "joined_at": self._clock(),
            }
            connection.execute(sa.insert(raters).values(row))
        return rater_id

    def add_tasks(self, new_tasks: Iterable[NewTask]) -> int:
        """Adds tasks, all or none; returns how many are new.

        A task of the same kind about the same images is the same task, in whatever order they stand. Its overlap and hidden gold follow
        the new ones, see `data.planning.update_plan`; all else stays as it was at first.
        """
        wanted = list(new_tasks)
        with self.database.write() as connection:
            added = self._insert_tasks(connection, wanted)
            update_plan(connection, {task_id_of(task): task for task in wanted})
        self._totals = {}
        return added

    def import_labels(
        self,
        new_tasks: Iterable[NewTask],
        imported: Sequence[ImportedLabel],
        *,
        finish: Callable[[], None],
    ) -> Added:
        """Adds tasks and labels that were given elsewhere, with their own raters and times: all or none, and no label twice.

        A known task stays as it is. A label whose submission id the store has is passed over; a further one of the same rater to the same
        task is a new revision.
        `finish` is called at the end, before the commit: what it raises takes everything back.
        """
        with self.database.write() as connection:
            now = self._clock()
            n_tasks = self._insert_tasks(connection, new_tasks)
            known = set(connection.scalars(sa.select(raters.c.rater_id)))
            fresh = new_labels(connection, imported)
            wanted = {self.rater_id_of(one.source, one.rater): one for one in fresh}
            added = {rater_id: one for rater_id, one in wanted.items() if rater_id not in known}
            new_raters = [
                {"rater_id": i, "name": one.rater, "source": one.source, "joined_at": now}
                for i, one in added.items()
            ]
            insert_rows(connection, raters, new_raters)
            insert_labels(
                connection,
                fresh,
                now,
                task_id=task_id_of,
                rater_id=self.rater_id_of,
                label_id=uuid7,
            )
            finish()
        return Added(n_tasks, len(fresh), len(new_raters))

    def set_priorities(self, image_priorities: Mapping[str, float]) -> None:
        """Decides by images which tasks come first, see `data.planning.set_priorities`."""
        with self.database.write() as connection:
            set_priorities(connection, image_priorities, self._clock())

    def claim(
        self, rater_id: str, *, kind: TaskKind | None = None, excluding: Collection[str] = ()
    ) -> Claim | None:
        """Holds a task for the rater, in one transaction; None when there is nothing (left) for this rater.

        A task that the rater holds already, and that is not one of `excluding`, is given again, with its hold renewed. Otherwise the task
        of highest priority with a place left is given, in random order within a priority, and its images are put into a random order; or
        now and then one that checks the rater.

        Raises:
            NotFound: no such rater.
        """
        with self.database.write() as connection:
            now = self._clock()
            rater = find_row(connection, raters, rater_id)
            if rater is None:
                raise NotFound(f"rater {rater_id}: not known; sign in again")
            held = held_lease(connection, rater_id, kind, now, excluding)
            if held is not None:
                task = load_task(connection, held.task_id)
                return Claim(
                    task,
                    self._extend(connection, task, rater_id, now),
                    tuple(held.shown_order),
                    held.shown_at,
                )
            next_in_queue = free_task(connection, rater, kind, now, excluding)
            if next_in_queue is None:
                return None
            task_id, shown_order = self._check(connection, rater, kind, now, excluding) or (
                next_in_queue,
                None,
            )
            task = load_task(connection, task_id)
            if shown_order is None:
                shown_order = list(range(len(task.image_ids)))
                self._rng.shuffle(shown_order)
            expires_at = self._lease_end(connection, task.kind, now)
            give_lease(
                connection,
                task_id,
                rater_id,
                shown_order=shown_order,
                shown_at=now,
                expires_at=expires_at,
            )
            return Claim(task, expires_at, tuple(shown_order), now)

    def renew(self, rater_id: str, task_id: str) -> datetime:
        """Prolongs the rater's hold on a task; returns when it will run out.

        Raises:
            NotFound: the rater does not hold the task: it was never claimed or is answered, an image of it was reported, or the hold ran
                out and others have the place.
        """
        with self.database.write() as connection:
            now = self._clock()
            task = lock_task(connection, task_id)
            lease = find_lease(connection, task_id, rater_id)
            if lease is None or lease.expires_at is None:
                raise NotFound(f"task {task_id}: not held by this rater; claim a task first")
            if withheld_tasks(connection, [task_id]):
                raise NotFound(
                    f"task {task_id}: an image of it was reported; claim another task, an answer is still accepted"
                )
            rater = find_row(connection, raters, rater_id)
            assert rater is not None  # the lease refers to it
            if lease.expires_at <= now and not has_place(connection, task_id, rater.source, now):
                raise NotFound(
                    f"task {task_id}: the hold has run out and others have taken the place; an answer is still accepted"
                )
            return self._extend(connection, task, rater_id, now)

    def submit(self, submission: Submission) -> Receipt:
        """Saves an answer; when this returns it is on disk. The same submission again gives the same receipt and changes nothing.

        Another submission of the same rater for the same task is an edit: a new revision that takes the place of the one before. An image
        that the answer reports is out of circulation from now on; one that only the answer before reported is back.

        Raises:
            NotFound: no such task or rater.
            InvalidAnswer: the answer does not fit the task, the task was never given to the rater, or the submission's id was used before
                for another task or rater.
        """
        with self.database.write() as connection:
            now = self._clock()
            task = lock_task(connection, submission.task_id)
            received = find_label(connection, submission.submission_id)
            if received is not None:
                return _receipt_of_earlier(received, submission)
            check_answer(submission.answer, task.kind, task.image_ids)
            lease = find_lease(connection, task.task_id, submission.rater_id)
            if lease is None and find_row(connection, raters, submission.rater_id) is None:
                raise NotFound(f"rater {submission.rater_id}: not known; sign in again")
            if lease is None:
                raise InvalidAnswer(
                    f"task {task.task_id}: was never given to this rater; claim it first"
                )
            live = retire_live(connection, task.task_id, submission.rater_id)
            end_lease(connection, task.task_id, submission.rater_id, None)
            if live:
                withdraw_reports(connection, task.task_id, submission.rater_id)
            else:
                add_to_live_count(connection, task.task_id, submission.rater_id, 1)
            late = {"lease_late": not live and is_over(lease, now)}
            receipt = self._add_revision(connection, lease, now, _values_of(submission) | late)
            open_reports(
                connection, receipt.label_id, task.task_id, task.image_ids, submission.answer
            )
            return receipt

    def undo(self, rater_id: str) -> Task | None:
        """Takes back the rater's last live label by a revision without an answer, and gives the task to the rater again; None without one.

        Raises:
            NotFound: no such rater.
        """
        with self.database.write() as connection:
            now = self._clock()
            if find_row(connection, raters, rater_id) is None:
                raise NotFound(f"rater {rater_id}: not known; sign in again")
            while (last := latest_live(connection, rater_id)) is not None:
                task = lock_task(connection, last.task_id)
                if not retire_live(connection, task.task_id, rater_id):
                    continue  # another undo took this one back before the lock was ours
                withdraw_reports(connection, task.task_id, rater_id)
                add_to_live_count(connection, task.task_id, rater_id, -1)
                lease = find_lease(connection, task.task_id, rater_id)
                assert lease is not None
                # by chance: an id made of what clients know might be one that they have sent
                undo_id = f"undo-{uuid.UUID(int=self._rng.getrandbits(128), version=4)}"
                taken_back = {
                    "submission_id": undo_id,
                    "kind": task.kind,
                    "is_live": False,
                    "lease_late": False,
                }
                self._add_revision(connection, lease, now, taken_back)
                expires_at = self._lease_end(connection, task.kind, now)
                give_lease(
                    connection,
                    task.task_id,
                    rater_id,
                    shown_order=lease.shown_order,
                    shown_at=now,
                    expires_at=expires_at,
                )
                return task
            return None

    def progress(
        self, rater_id: str | None = None, *, source: Source = "human", newest: bool = False
    ) -> Progress:
        """How far people's labeling is, or that of simulated raters, and how many live labels are by this rater.

        Of a large campaign the figures are up to a second old, unless the `newest` are asked for.
        """
        with self.database.read() as connection:
            now = self._clock()
            totals = self._totals.get(source)
            if newest or totals is None or not totals.holds(now):
                totals = self._totals[source] = count_totals(connection, source, now)
            mine = 0 if rater_id is None else count_live(connection, rater_id)
        seconds_left = None if totals.pace is None else (totals.total - totals.done) / totals.pace
        return Progress(mine=mine, done=totals.done, total=totals.total, seconds_left=seconds_left)

    @property
    def is_paused(self) -> bool:
        """Whether the campaign hands out no tasks for now; kept in the store, so that all replicas and the next start know."""
        with self.database.read() as connection:
            return find_row(connection, settings, "paused") is not None

    def set_paused(self, paused: bool) -> None:
        """Pauses the campaign or goes on with it; the app reads `is_paused`, `claim` does not."""
        with self.database.write() as connection:
            connection.execute(sa.delete(settings).where(settings.c.name == "paused"))
            if paused:
                connection.execute(
                    sa.insert(settings).values(name="paused", value=self._clock().isoformat())
                )

    def _check(
        self,
        connection: sa.Connection,
        rater: Row,
        kind: TaskKind | None,
        now: datetime,
        excluding: Collection[str],
    ) -> tuple[str, list[int] | None] | None:
        """Now and then a hidden gold task or a repeat, with its order on the screen if that is not up to chance."""
        if not self._checks.gold_share and not self._checks.repeat_share:
            return None
        drawn = self._rng.random()
        if drawn < self._checks.gold_share:
            gold = free_task(connection, rater, kind, now, excluding, gold=True)
            return None if gold is None else (gold, None)
        if drawn - self._checks.gold_share < self._checks.repeat_share:
            earlier = sorted(repeatable_tasks(connection, rater.rater_id, kind))
            return (
                self._repeat(connection, self._rng.choice(earlier), rater, now) if earlier else None
            )
        return None

    def _repeat(
        self, connection: sa.Connection, earlier: str, rater: Row, now: datetime
    ) -> tuple[str, list[int]] | None:
        task_id = add_repeat(connection, earlier, now)
        if not has_place(connection, task_id, rater.source, now):
            return None
        before = find_lease(connection, earlier, rater.rater_id)
        assert before is not None
        return task_id, [len(before.shown_order) - 1 - place for place in before.shown_order]

    def _insert_tasks(self, connection: sa.Connection, new_tasks: Iterable[NewTask]) -> int:
        now = self._clock()
        known_tasks = set(connection.scalars(sa.select(tasks.c.task_id)))
        known_prompts = set(connection.scalars(sa.select(prompts.c.prompt_id)))
        wanted = {task_id_of(task): task for task in new_tasks}
        added = {task_id: task for task_id, task in wanted.items() if task_id not in known_tasks}
        new_prompts = {prompt_id(task.prompt): task.prompt for task in added.values()}
        insert_rows(
            connection,
            prompts,
            [
                {"prompt_id": key, "prompt": text}
                for key, text in new_prompts.items()
                if key not in known_prompts
            ],
        )
        insert_rows(
            connection,
            tasks,
            [self._task_row(task_id, task, now) for task_id, task in added.items()],
        )
        images = [
            {"task_id": task_id, "position": position, "image_id": image_id}
            for task_id, task in added.items()
            for position, image_id in enumerate(task.image_ids)
        ]
        insert_rows(connection, task_images, images)
        return len(added)

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
            "n_simulated": 0,
            "priority": task.priority,
            "order_key": int.from_bytes(order, "big", signed=True),
            "gold_json": task.gold_json,
            "gold_source": task.gold_source,
            "created_at": now,
        }

    def _lease_end(self, connection: sa.Connection, kind: TaskKind, now: datetime) -> datetime:
        length_s = max(
            self._lease.shortest_s, self._lease.times_median * median_seconds(connection, kind)
        )
        return now + timedelta(seconds=length_s)

    def _extend(
        self, connection: sa.Connection, task: Task, rater_id: str, now: datetime
    ) -> datetime:
        expires_at = self._lease_end(connection, task.kind, now)
        end_lease(connection, task.task_id, rater_id, expires_at)
        return expires_at

    def _add_revision(
        self, connection: sa.Connection, lease: Row, now: datetime, values: dict[str, object]
    ) -> Receipt:
        revision = next_revision(connection, lease.task_id, lease.rater_id)
        label_id = uuid7(now, str(values["submission_id"]))
        row = {
            "task_id": lease.task_id,
            "rater_id": lease.rater_id,
            "shown_order": lease.shown_order,
            "shown_at": lease.shown_at,
        }
        row |= {"label_id": label_id, "revision": revision, "submitted_at": now}
        insert_label(connection, row | values)
        return Receipt(label_id, revision, created=True)


def task_id_of(task: NewTask) -> str:
    """The task's identity: SHA-256 of its kind and image ids, in whatever order they stand."""
    return hashlib.sha256("\n".join([task.kind, *sorted(task.image_ids)]).encode()).hexdigest()


def _values_of(submission: Submission) -> dict[str, object]:
    same = submission.model_dump(
        include={
            "submission_id",
            "time_on_task_ms",
            "active_ms",
            "input_mode",
            "session_id",
            "app_version",
            "guideline_version",
        }
    )
    return same | {
        "kind": submission.answer.kind,
        "answer_json": submission.answer.model_dump_json(),
        "is_live": True,
    }


def _receipt_of_earlier(received: Row, submission: Submission) -> Receipt:
    if (received.task_id, received.rater_id) != (submission.task_id, submission.rater_id):
        raise InvalidAnswer(
            f"submission {submission.submission_id}: was used for another task or rater; give each answer an id of its own"
        )
    return Receipt(received.label_id, received.revision, created=False)

"""The feedback store: the only record of tasks, leases and labels.

Guarantees: when a method returns, its effect is on disk; labels are only added, never changed; a
claim never lets live labels and live leases of a task exceed its overlap (a late answer is accepted
and flagged; it may exceed the overlap); a rater never gets a task twice unless the answer was
undone, and never a task with a reported image (`data.store.people.reports`). One process with any
number of threads may share a store.

Each task has its overlap of places for people, and as many for simulated raters. Imported labels
fill places of both.

Each method of `FeedbackStore` is one transaction. The modules beside this one have the steps of
these transactions.
"""

import hashlib
import random
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import sqlalchemy as sa

from data.errors import PictuneError
from data.feedback import (
    ChecksConfig,
    Claim,
    LeaseConfig,
    NewTask,
    Progress,
    Receipt,
    Source,
    Submission,
    Task,
)
from data.kinds.kind import InvalidAnswer
from data.kinds.registry import TaskKind, check_answer, kind_of
from data.store import leases, revisions
from data.store.database import Database, StorePart
from data.store.imported import Added, ImportedLabel, insert_labels
from data.store.leases import ClaimRequest
from data.store.people.adjudication import Adjudications
from data.store.people.attempts import Attempts
from data.store.people.audit import Audit, record
from data.store.people.raters import Raters, find_or_insert
from data.store.people.reports import Reports, open_reports
from data.store.plan import planning
from data.store.plan.own_work import OwnWork, rows_aside, take_first_aside
from data.store.plan.planning import Comparisons, PlanChanges
from data.store.plan.task_queue import draw_check, free_task
from data.store.queries import load_rater, load_task, read_setting, write_setting
from data.store.sessions import Sessions
from data.store.views.progress import LatestTotals, fair_hold


def utc_now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


@dataclass(eq=False)
class FeedbackStore(StorePart):
    """Tasks, leases and labels in one SQL database; made by `FeedbackStore.open`."""

    rng: random.Random
    lease: LeaseConfig
    checks: ChecksConfig

    def __post_init__(self) -> None:
        database, clock = self.database, self.clock
        self._totals = LatestTotals()
        with database.write_alone() as connection:
            self._salt = self._read_or_draw(connection, "salt")
            self._order_seed = self._read_or_draw(connection, "order_seed")
        self.raters, self.reports = Raters(database, clock), Reports(database, clock)
        self.audit = Audit(database, clock)
        self.attempts = Attempts(database, clock, self._salt)
        self.adjudications = Adjudications(database, clock, self.rater_id_of)
        self.comparisons = Comparisons(database, clock, self._order_seed)
        self.plan = PlanChanges(database, clock)
        self.own_work = OwnWork(database, clock, self.lease)
        self.sessions = Sessions(database, clock)

    def _read_or_draw(self, connection: sa.Connection, name: str) -> str:
        """Return a setting of 128 random bits, drawn when the store is new."""
        value = read_setting(connection, name)
        if value is None:
            value = f"{self.rng.getrandbits(128):032x}"
            write_setting(connection, name, value)
        return value

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
        """Open the store at an SQLAlchemy URL (`sqlite:///FILE`); create or migrate its tables.

        Args:
            url: names the database.
            clock: returns the present moment.
            rng: draws the order of a task's images on the screen, the claims that get a check and,
                for a new store, its salt and order seed. By default it is the operating system's
                unpredictable randomness.
            lease: settings of the leases.
            checks: settings of the tasks that check raters.

        Raises:
            PictuneError: the URL is wrong, or the database cannot be opened or is of a newer
                version.
        """
        database = Database(url)
        database.migrate()
        return cls(database, clock, rng or random.SystemRandom(), lease, checks)

    def close(self) -> None:
        """Close the store's connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def public_rater_id(self, rater_id: str) -> str:
        """Return the salted hash under which a rater appears in exports."""
        return hashlib.sha256(f"{self._salt}:{rater_id}".encode()).hexdigest()[:32]

    def rater_id_of(self, source: Source, name: str) -> str:
        """Return the store's own id of the rater of this name and source, known or not."""
        digest = hashlib.sha256(f"{self._salt}:{source}:{name}".encode()).hexdigest()
        return str(uuid.UUID(digest[:32], version=5))

    def add_rater(self, name: str, *, source: Source = "human", by: str | None = None) -> str:
        """Add a rater, or find the rater with this name and source; return the rater's id.

        `data.store.people.raters.find_named` says which names count as equal. `by` is the admin who
        adds.
        """
        if not 1 <= len(name.strip()) <= 200:
            raise PictuneError(
                "rater name: empty or longer than 200 characters; give a shorter one"
            )
        rater_id = self.rater_id_of(source, name.strip())
        with self.write() as (connection, now):
            rater_id = find_or_insert(connection, name, source, now, rater_id=rater_id)
            if by is not None:
                record(connection, "add_rater", now, by, subject=rater_id)
            return rater_id

    def add_tasks(self, new_tasks: Iterable[NewTask]) -> int:
        """Add tasks, all or none; return how many are new.

        Tasks of the same kind about the same images, in any order, are the same task. A known task
        takes the overlap and the hidden gold of the new one (see
        `data.store.plan.planning.update_plan`) and keeps all other fields. An overlap that an admin
        set (`plan`) has precedence.
        """
        with self.database.write_alone() as connection:
            wanted = planning.with_asked_overlap(connection, new_tasks)
            added = planning.insert_tasks(
                connection, wanted, self.clock(), order_seed=self._order_seed
            )
            planning.update_plan(connection, {planning.task_id_of(task): task for task in wanted})
        self._totals.forget()
        return added

    def import_labels(
        self,
        new_tasks: Iterable[NewTask],
        imported: Sequence[ImportedLabel],
        *,
        finish: Callable[[], None],
    ) -> Added:
        """Add imported tasks and labels, with their own raters and times.

        All are added or none, and no label twice. A known task stays as it is. A label with a known
        submission id is skipped. A further label of the same rater about the same task is a new
        revision. `finish` is called at the end, before the commit: if it raises, everything is
        taken back.
        """
        with self.write() as (connection, now):
            n_tasks = planning.insert_tasks(connection, new_tasks, now, order_seed=self._order_seed)
            added = insert_labels(connection, imported, now, rater_id_of=self.rater_id_of)
            finish()
        return Added(n_tasks, *added)

    def claim(
        self,
        rater_id: str,
        *,
        kind: TaskKind | None = None,
        excluding: Collection[str] = (),
        wanted: str | None = None,
    ) -> Claim | None:
        """Lease a task to the rater, in one transaction; None if no task is left for this rater.

        If the rater has a live lease on a task outside `excluding`, that task is returned and its
        lease renewed; of several such tasks, the task `wanted` or else the latest. Otherwise the
        rater gets the task of highest priority with a free place (in random order within a
        priority), or sometimes a check. Its images are put into a random order. Tasks that the
        rater has put aside (`own_work`) come last, and only to claims without `excluding`.

        Raises:
            NotFound: no such rater.
        """
        with self.write() as (connection, now):
            rater = load_rater(connection, rater_id)
            request = ClaimRequest(connection, rater, kind, now, self.lease)
            held = leases.live_lease(request, excluding, wanted)
            if held is not None:
                return leases.hand_out_again(request, held)
            others = [*excluding, *(row.task_id for row in rows_aside(request))]
            task_id = free_task(request, others)
            if task_id is None and excluding:
                return None  # tasks put aside are never prefetched
            if task_id is None:
                return take_first_aside(request, rows_aside(request))
            check = draw_check(request, others, self.checks, self.rng)
            task_id, shown_order = check or (task_id, None)
            task = load_task(connection, task_id)
            if shown_order is None:
                shown_order = list(range(len(task.image_ids)))
                self.rng.shuffle(shown_order)
            return leases.hand_out(request, task, shown_order)

    def renew(self, rater_id: str, task_id: str) -> datetime:
        """Renew the rater's lease on a task; return the time of its end.

        Raises:
            NotFound: the rater has no lease on the task: the task was never claimed or is answered,
                one of its images was reported, or the lease ended and others have the place.
        """
        with self.write() as (connection, now):
            task = load_task(connection, task_id, lock=True)
            leases.check_hold(connection, load_rater(connection, rater_id), task_id, now)
            return leases.renew_lease(connection, task, rater_id, now, self.lease)

    def release(self, rater_id: str, task_id: str) -> None:
        """End the rater's lease on a task: from now on other raters can get it.

        A late answer is still accepted. Without a live lease nothing happens.

        Raises:
            NotFound: no such task.
        """
        with self.write() as (connection, now):
            load_task(connection, task_id, lock=True)
            lease = leases.find_lease(connection, task_id, rater_id)
            if lease is not None and not leases.is_over(lease, now):
                leases.end_lease(connection, task_id, rater_id, now)

    def submit(self, submission: Submission) -> Receipt:
        """Save an answer; when this returns it is on disk.

        The same submission again returns the same receipt and changes nothing. Another submission
        of the same rater for the same task is an edit: a new revision that replaces the previous
        one. Images that the answer reports go out of circulation; images that only the previous
        answer reported come back.

        Raises:
            NotFound: no such task or rater.
            InvalidAnswer: the answer does not fit the task, the task was never given to the rater,
                or the submission's id was used before for another task or rater.
        """
        with self.write() as (connection, now):
            task = load_task(connection, submission.task_id, lock=True)
            earlier = revisions.earlier_receipt(connection, submission)
            if earlier is not None:
                return earlier
            answer, rater_id = submission.answer, submission.rater_id
            check_answer(answer, task.kind, task.image_ids, task.axis, task.steps)
            kind_of(answer).check_words(answer, task.prompt)
            lease = leases.find_lease(connection, task.task_id, rater_id)
            if lease is None:
                load_rater(connection, rater_id)
                raise InvalidAnswer(
                    f"task {task.task_id}: was never given to this rater; claim it first"
                )
            is_edit = revisions.retire_live(connection, task.task_id, rater_id)
            leases.close_lease(connection, task.task_id, rater_id)
            sent = submission.model_dump(include=revisions.SENT_WITH_AN_ANSWER)
            own = {"is_live": True, "lease_late": not is_edit and leases.is_over(lease, now)}
            values = sent | revisions.answer_values(answer) | own
            receipt = revisions.add_revision(connection, lease, now, values)
            if not is_edit:
                revisions.recount_live(connection, [task.task_id])
            open_reports(connection, receipt.label_id, task, answer, limited_rater=rater_id)
            return receipt

    def undo(self, rater_id: str) -> Task | None:
        """Take back the rater's last live label; return its task, or None without such a label.

        A revision without an answer replaces it, and the rater gets the task again.

        Raises:
            NotFound: no such rater.
        """
        with self.write() as (connection, now):
            load_rater(connection, rater_id)
            while (last := revisions.latest_live(connection, rater_id)) is not None:
                task = load_task(connection, last.task_id, lock=True)
                if not revisions.retire_live(connection, task.task_id, rater_id):
                    continue  # another undo removed this label before this one got the lock
                revisions.recount_live(connection, [task.task_id])
                lease = leases.find_lease(connection, task.task_id, rater_id)
                assert lease is not None
                # random: a client could have used any predictable id already
                undo_id = f"undo-{uuid.UUID(int=self.rng.getrandbits(128), version=4)}"
                no_answer = {"kind": task.kind, "is_live": False, "lease_late": False}
                revisions.add_revision(
                    connection, lease, now, {"submission_id": undo_id, **no_answer}
                )
                shown = {"shown_order": lease.shown_order, "wording": lease.wording}
                end = leases.lease_end(connection, task.kind, now, self.lease)
                held = {"shown_at": now, "expires_at": end}
                leases.give_lease(connection, task.task_id, rater_id, **shown, **held)
                return task
            return None

    def progress(
        self, rater_id: str | None = None, *, source: Source = "human", newest: bool = False
    ) -> Progress:
        """Return the progress of people's or simulated raters' labeling, and of one rater's.

        The figures of a large campaign are up to a second old, or 20 seconds of a million tasks,
        unless `newest` is set.
        """
        with self.database.read() as connection:
            totals = self._totals.get(connection, source, self.clock(), newest=newest)
            mine = 0 if rater_id is None else revisions.count_live(connection, rater_id)
        return Progress(mine, totals.done, totals.total, totals.seconds_left, fair_hold(totals))

    @property
    def is_paused(self) -> bool:
        """Whether the campaign is paused, for all replicas and after a restart."""
        with self.database.read() as connection:
            return read_setting(connection, "paused") is not None

    def set_paused(self, paused: bool, *, by: str | None = None) -> None:
        """Pause or resume the campaign; the app reads `is_paused`, `claim` does not."""
        with self.write() as (connection, now):
            was_paused = self.is_paused
            if was_paused != paused:
                before, after = {"paused": was_paused}, {"paused": paused}
                record(connection, "set_paused", now, by, before=before, after=after)
                write_setting(connection, "paused", now.isoformat() if paused else None)

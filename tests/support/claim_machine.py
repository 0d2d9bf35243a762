"""Any history of claims, as a state machine for hypothesis.

It has three people, two simulated raters and the rules that no history may break.
"""

import random
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from data.feedback import Claim, Decision, NewTask, NotFound, Source
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.leases import SHORTEST_S
from data.store.plan.planning import task_id_of
from data.store.tables import labels, leases, metadata, raters, tasks
from tests.support.data_campaign import Clock, submission

SOURCES: tuple[Source, ...] = ("human", "human", "human", "simulated", "simulated")
RATERS = st.integers(0, len(SOURCES) - 1)
MOST_HELD = 4
"""Tasks that a rater holds here, which need not be as many as a page holds."""


class Campaigning(RuleBasedStateMachine):
    """History of a campaign in any order.

    Raters claim, fetch ahead, renew and release leases, answer in time or late, report, edit, undo
    and wander off, and an admin decides.
    """

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.url = url or f"sqlite:///{self.folder / 'feedback.db'}"

    @initialize(overlaps=st.lists(st.integers(1, 2), min_size=1, max_size=4))
    def open(self, overlaps: list[int]) -> None:
        self.clock = Clock()
        self.store = FeedbackStore.open(self.url, clock=self.clock, rng=random.Random(0))
        self.raters = [
            self.store.add_rater(f"rater{number}", source=source)
            for number, source in enumerate(SOURCES)
        ]
        planned = [
            NewTask(kind="binary", prompt="a cat", image_ids=(f"image{number}",), overlap=overlap)
            for number, overlap in enumerate(overlaps)
        ]
        self.store.add_tasks(planned)
        self.images = {task_id_of(task): task.image_ids[0] for task in planned}
        self.shown: dict[int, dict[str, Claim]] = {rater: {} for rater in range(len(SOURCES))}
        self.answered: dict[int, list[Claim]] = {rater: [] for rater in range(len(SOURCES))}
        self.late: Counter[tuple[str, Source]] = Counter()
        self.reporters: dict[str, set[int]] = {}
        self.removed: set[str] = set()
        self.sent = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            # a server's database serves the next history as well
            with self.store.database.write() as connection:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(sa.delete(table))
            self.store.close()
        shutil.rmtree(self.folder)

    def send(self, rater: int, claim: Claim, verdict: Literal["good", "unsafe"] = "good") -> None:
        self.sent += 1
        answer = BinaryAnswer(verdict=verdict)
        sent = submission(claim, self.raters[rater], str(self.sent), answer)
        assert self.store.submit(sent).created
        reporters = self.reporters.setdefault(claim.task.task_id, set())
        reporters.discard(rater)
        if verdict == "unsafe":
            reporters.add(rater)

    def is_withheld(self, task_id: str) -> bool:
        return bool(self.reporters.get(task_id)) or task_id in self.removed

    def is_held(self, claim: Claim) -> bool:
        return claim.lease_expires_at > self.clock.now

    def note(self, rater: int, claim: Claim | None) -> None:
        if claim is not None:
            assert claim.task not in [earlier.task for earlier in self.answered[rater]]
            assert self.is_held(claim)
            assert not self.is_withheld(claim.task.task_id)
            self.shown[rater][claim.task.task_id] = claim

    @rule(rater=RATERS)
    def claim(self, rater: int) -> None:
        held = {
            task_id
            for task_id, claim in self.shown[rater].items()
            if self.is_held(claim) and not self.is_withheld(task_id)
        }
        claim = self.store.claim(self.raters[rater])
        if held:
            assert claim is not None
            assert claim.task.task_id in held
        self.note(rater, claim)

    @rule(rater=RATERS)
    def fetch_ahead(self, rater: int) -> None:
        if len(self.shown[rater]) < MOST_HELD:
            claim = self.store.claim(self.raters[rater], excluding=tuple(self.shown[rater]))
            assert claim is None or claim.task.task_id not in self.shown[rater]
            self.note(rater, claim)

    @rule(rater=RATERS)
    def renew(self, rater: int) -> None:
        for task_id, claim in self.shown[rater].items():
            try:
                until = self.store.renew(self.raters[rater], task_id)
            except NotFound:
                assert not self.is_held(claim) or self.is_withheld(task_id)
            else:
                assert not self.is_withheld(task_id)
                assert until >= claim.lease_expires_at
                self.shown[rater][task_id] = replace(claim, lease_expires_at=until)

    @rule(rater=RATERS)
    def release(self, rater: int) -> None:
        if self.shown[rater]:
            task_id, claim = list(self.shown[rater].items())[-1]
            self.store.release(self.raters[rater], task_id)
            ended = min(claim.lease_expires_at, self.clock.now)
            self.shown[rater][task_id] = replace(claim, lease_expires_at=ended)

    @rule(rater=RATERS, verdict=st.sampled_from(["good", "unsafe"]))
    def answer(self, rater: int, verdict: Literal["good", "unsafe"]) -> None:
        if self.shown[rater]:
            task_id, claim = next(iter(self.shown[rater].items()))
            del self.shown[rater][task_id]
            self.late[task_id, SOURCES[rater]] += not self.is_held(claim)
            self.send(rater, claim, verdict)
            self.answered[rater].append(claim)

    @precondition(lambda self: any(self.answered.values()))
    @rule(rater=RATERS)
    def edit(self, rater: int) -> None:
        if self.answered[rater]:
            self.send(rater, self.answered[rater][-1])

    @rule(rater=RATERS)
    def undo(self, rater: int) -> None:
        self.clock.pass_seconds(1)  # what is shown last comes back first
        task = self.store.undo(self.raters[rater])
        assert (task is None) == (not self.answered[rater])
        if task is not None:
            assert self.answered[rater].pop().task == task
            self.reporters[task.task_id].discard(rater)
            if self.is_withheld(task.task_id):  # held again, but not handed out
                until = self.clock.now + timedelta(seconds=SHORTEST_S)
                self.shown[rater][task.task_id] = Claim(task, until, (0,), self.clock.now)
                return
            claim = self.store.claim(self.raters[rater])
            assert claim is not None
            assert claim.task == task
            self.note(rater, claim)

    @precondition(lambda self: any(self.is_withheld(task_id) for task_id in self.reporters))
    @rule(decision=st.sampled_from(["kept", "removed"]))
    def decide(self, decision: Decision) -> None:
        task_id = next(task_id for task_id in self.reporters if self.is_withheld(task_id))
        if decision == "kept":
            self.removed.discard(task_id)
        elif self.reporters[task_id]:
            self.removed.add(task_id)
        else:
            return  # is removed
        self.reporters[task_id].clear()
        self.store.reports.decide(self.images[task_id], decision, self.raters[0])

    @rule(seconds=st.sampled_from([1, 200, 400]))
    def wait(self, seconds: int) -> None:
        self.clock.pass_seconds(seconds)

    @invariant()
    def overlap_is_kept_among_people_and_among_simulated_raters(self) -> None:
        of_task = sa.select(labels.c.task_id, raters.c.source).join(raters)
        held_by = sa.select(leases.c.task_id, raters.c.source).join(raters)
        with self.store.database.read() as connection:
            states = connection.execute(sa.select(tasks)).all()
            live = Counter(map(tuple, connection.execute(of_task.where(labels.c.is_live))))
            is_held = leases.c.expires_at > self.clock.now
            held = Counter(map(tuple, connection.execute(held_by.where(is_held))))
        for task in states:
            counts = [live[task.task_id, source] for source in ("human", "simulated")]
            assert [task.n_live, task.n_simulated] == counts
            for source in set(SOURCES):
                key = task.task_id, source
                assert live[key] + held[key] <= task.overlap + self.late[key]

    @invariant()
    def revisions_count_and_one_at_most_is_live(self) -> None:
        with self.store.database.read() as connection:
            rows = connection.execute(sa.select(labels).order_by(labels.c.sequence)).all()
        revisions: dict[tuple[str, str], list[int]] = {}
        for row in rows:
            revisions.setdefault((row.task_id, row.rater_id), []).append(row.revision)
        assert all(given == list(range(1, len(given) + 1)) for given in revisions.values())
        live = Counter((row.task_id, row.rater_id) for row in rows if row.is_live)
        assert set(live) == {
            (claim.task.task_id, self.raters[rater])
            for rater, claims in self.answered.items()
            for claim in claims
        }
        assert set(live.values()) <= {1}

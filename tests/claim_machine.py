"""Any history of claims, as a state machine for hypothesis: three people, two simulated raters and the rules that no history may break."""

import random
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from data.feedback import Claim, NewTask, NotFound, Source
from data.store import FeedbackStore
from data.tables import labels, leases, metadata, raters, tasks
from tests.data_campaign import Clock, submission

SOURCES: tuple[Source, ...] = ("human", "human", "human", "simulated", "simulated")
RATERS = st.integers(0, len(SOURCES) - 1)
MOST_HELD = 4
"""A page asks for one task besides the three that it holds."""


class Campaigning(RuleBasedStateMachine):
    """Raters claim, fetch ahead, prolong, answer in time or late, edit, undo and wander off, in any order."""

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.url = url or f"sqlite:///{self.folder / 'feedback.db'}"

    @initialize(overlaps=st.lists(st.integers(1, 2), min_size=1, max_size=4))
    def open(self, overlaps: list[int]) -> None:
        self.clock = Clock()
        self.store = FeedbackStore.open(self.url, clock=self.clock, rng=random.Random(0))
        self.raters = [self.store.add_rater(f"rater{number}", source=source) for number, source in enumerate(SOURCES)]
        images = [(f"image{number}",) for number in range(len(overlaps))]
        self.store.add_tasks(
            NewTask(kind="binary", prompt="a cat", image_ids=ids, overlap=overlap) for ids, overlap in zip(images, overlaps, strict=True)
        )
        self.shown: dict[int, dict[str, Claim]] = {rater: {} for rater in range(len(SOURCES))}
        self.answered: dict[int, list[Claim]] = {rater: [] for rater in range(len(SOURCES))}
        self.late: Counter[tuple[str, Source]] = Counter()
        self.sent = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            with self.store.database.write() as connection:  # a server's database serves the next history as well
                for table in reversed(metadata.sorted_tables):
                    connection.execute(sa.delete(table))
            self.store.close()
        shutil.rmtree(self.folder)

    def send(self, rater: int, claim: Claim) -> None:
        self.sent += 1
        assert self.store.submit(submission(claim, self.raters[rater], str(self.sent))).created

    def is_held(self, claim: Claim) -> bool:
        return claim.lease_expires_at > self.clock.now

    def note(self, rater: int, claim: Claim | None) -> None:
        if claim is not None:
            assert claim.task.task_id not in {earlier.task.task_id for earlier in self.answered[rater]}
            assert self.is_held(claim)
            self.shown[rater][claim.task.task_id] = claim

    @rule(rater=RATERS)
    def claim(self, rater: int) -> None:
        held = {task_id for task_id, claim in self.shown[rater].items() if self.is_held(claim)}
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
    def prolong(self, rater: int) -> None:
        for task_id, claim in self.shown[rater].items():
            try:
                until = self.store.renew(self.raters[rater], task_id)
            except NotFound:
                assert not self.is_held(claim)
            else:
                assert until >= claim.lease_expires_at
                self.shown[rater][task_id] = replace(claim, lease_expires_at=until)

    @rule(rater=RATERS)
    def answer(self, rater: int) -> None:
        if self.shown[rater]:
            task_id, claim = next(iter(self.shown[rater].items()))
            del self.shown[rater][task_id]
            self.late[task_id, SOURCES[rater]] += not self.is_held(claim)
            self.send(rater, claim)
            self.answered[rater].append(claim)

    @precondition(lambda self: any(self.answered.values()))
    @rule(rater=RATERS)
    def edit(self, rater: int) -> None:
        if self.answered[rater]:
            claim = self.answered[rater].pop()
            self.send(rater, claim)
            self.answered[rater].append(claim)

    @rule(rater=RATERS)
    def undo(self, rater: int) -> None:
        self.clock.pass_seconds(1)  # what is shown last comes back first
        task = self.store.undo(self.raters[rater])
        assert (task is None) == (not self.answered[rater])
        if task is not None:
            assert self.answered[rater].pop().task == task
            claim = self.store.claim(self.raters[rater])
            assert claim is not None
            assert claim.task == task
            self.note(rater, claim)

    @rule(seconds=st.sampled_from([1, 200, 400]))
    def wait(self, seconds: int) -> None:
        self.clock.pass_seconds(seconds)

    @invariant()
    def overlap_is_kept_among_people_and_among_simulated_raters(self) -> None:
        live_labels = sa.select(labels.c.task_id, raters.c.source).join(raters).where(labels.c.is_live)
        live_leases = sa.select(leases.c.task_id, raters.c.source).join(raters).where(leases.c.expires_at > self.clock.now)
        with self.store.database.read() as connection:
            states = connection.execute(sa.select(tasks)).all()
            live, held = (Counter((row.task_id, row.source) for row in connection.execute(query)) for query in (live_labels, live_leases))
        for task in states:
            assert (task.n_live, task.n_simulated) == (live[task.task_id, "human"], live[task.task_id, "simulated"])
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
        assert set(live) == {(claim.task.task_id, self.raters[rater]) for rater, claims in self.answered.items() for claim in claims}
        assert set(live.values()) <= {1}

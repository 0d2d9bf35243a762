"""Any history of answers, edits and undos, and a kill at any moment: what the export then says."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data.tables.parquet
import data.tables.verification
from data.feedback import Claim, Submission
from data.files import sha256_of
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.tables.parquet import Manifest, export, read_manifest
from data.tables.verification import verify
from tests.support.data_campaign import Campaign, answer_all, open_store

RATERS = 3
Key = tuple[str, str]
"""Task id and rater id."""


class History:
    """Writer of a store's history that keeps its own account of which answers count."""

    def __init__(self, root: Path) -> None:
        self.campaign = Campaign(root)
        self.store = self.campaign.store
        self.raters = [self.store.add_rater(f"rater{number}") for number in range(RATERS)]
        self.claims: dict[Key, Claim] = {}
        self.live: dict[Key, Answer] = {}
        """Answers in the order in which they were given."""
        self.count = 0

    def answer(self, rater: str, choice: int) -> None:
        claim = self.store.claim(rater)
        if claim is not None:
            self.claims[claim.task.task_id, rater] = claim
            self._submit(claim, rater, choice)

    def edit(self, rater: str, choice: int) -> None:
        mine = [key for key in self.live if key[1] == rater]
        if mine:
            self._submit(self.claims[mine[choice % len(mine)]], rater, choice)

    def undo(self, rater: str, _choice: int) -> None:
        mine = [key for key in self.live if key[1] == rater]
        self.store.undo(rater)
        if mine:
            del self.live[mine[-1]]

    def export(self, _rater: str, _choice: int) -> None:
        export(self.store, self.campaign.run)

    def _submit(self, claim: Claim, rater: str, choice: int) -> None:
        self.count += 1
        task = claim.task
        answer: Answer = BinaryAnswer.model_validate(
            {"verdict": ("good", "bad", "skip", "unsafe")[choice % 4], "comment": str(choice)}
        )
        if task.kind == "ranking":
            ranks = {
                image: (None, 1, 2, 3)[choice // 4**place % 4]
                for place, image in enumerate(task.image_ids)
            }
            answer = RankingAnswer(ranks=ranks)
        given = Submission(
            submission_id=str(self.count), task_id=task.task_id, rater_id=rater, answer=answer
        )
        for _ in range(1 + choice % 2):  # a retry changes nothing
            self.store.submit(given)
        self.live.pop((task.task_id, rater), None)
        self.live[task.task_id, rater] = answer


def exported(folder: Path) -> dict[Key, object]:
    """Return each verdict with its comment, or the ranks by image, by task and rater."""
    binary = pd.read_parquet(folder / "labels_binary.parquet").to_dict("records")
    rankings = pd.read_parquet(folder / "labels_ranking.parquet").to_dict("records")
    ranks: dict[Key, object] = {
        (row["task_id"], row["rater_id"]): {
            image: None if pd.isna(rank) else int(rank)
            for image, rank in zip(row["image_ids"], row["ranks"], strict=True)
        }
        for row in rankings
    }
    verdicts: dict[Key, object] = {
        (row["task_id"], row["rater_id"]): (row["label"], row["comment"]) for row in binary
    }
    return verdicts | ranks


ACTIONS: dict[str, Callable[[History, str, int], None]] = {
    "answer": History.answer,
    "edit": History.edit,
    "undo": History.undo,
    "export": History.export,
}


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*ACTIONS, "answer"]), st.integers(0, RATERS - 1), st.integers(0, 63)
        ),
        max_size=25,
    )
)
def test_any_history_exports_to_exactly_the_live_labels(
    actions: list[tuple[str, int, int]],
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (data.tables.parquet, data.tables.verification):
            patch.setattr(module, "PART_ROWS", 4)
        history = History(Path(folder))
        for action, rater, choice in actions:
            ACTIONS[action](history, history.raters[rater], choice)
        run, store = history.campaign.run, history.store
        manifest = export(store, run)
        expected = {
            (task, store.public_rater_id(rater)): answer.ranks
            if isinstance(answer, RankingAnswer)
            else (answer.verdict, answer.comment)
            for (task, rater), answer in history.live.items()
            if isinstance(answer, BinaryAnswer | RankingAnswer)
        }
        rows = exported(run.latest)
        assert rows == expected
        for kind in (tuple, dict):  # each table keeps the order of saving
            assert [key for key in rows if isinstance(rows[key], kind)] == [
                key for key in expected if isinstance(expected[key], kind)
            ]
        assert verify(store, run) == []
        before = {path: path.read_bytes() for path in run.latest.iterdir()}
        (run.latest / "tasks.parquet").unlink()
        assert export(store, run) == manifest
        assert {path: path.read_bytes() for path in run.latest.iterdir()} == before
        store.close()


def test_a_kill_between_any_two_writes_leaves_the_older_or_the_newer_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.tables.parquet, "PART_ROWS", 3)
    campaign = Campaign(tmp_path)
    answer_all(campaign.store, campaign.store.add_rater("anna"))
    older = export(campaign.store, campaign.run)
    answer_all(campaign.store, campaign.store.add_rater("bert"))
    campaign.store.close()
    seen: list[Manifest] = []
    while export_killed_at(tmp_path, len(seen)):
        seen.append(whole_export(campaign))
    newer = whole_export(campaign)
    assert newer.last_sequence > older.last_sequence
    assert len(seen) > 2 * len(newer.files) - 2  # each file is synced, and its folder
    assert [manifest in (older, newer) for manifest in seen] == [True] * len(seen)
    monkeypatch.setattr(data.tables.verification, "PART_ROWS", 3)
    with open_store(tmp_path) as store:
        assert verify(store, campaign.run) == []
    assert not list(campaign.run.parts.glob(".*"))


def export_killed_at(root: Path, sync: int) -> bool:
    """Export in a process that dies at its `sync`-th fsync, from 0; return whether it died."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    status = 1
    try:
        real, count = os.fsync, iter(range(sync + 1))

        def dying(descriptor: int) -> None:
            if next(count) == sync:
                os._exit(9)
            real(descriptor)

        with open_store(root) as store:
            os.fsync = dying  # type: ignore[assignment]
            export(store, RunFolder(root))
        status = 0
    finally:
        os._exit(status)


def whole_export(campaign: Campaign) -> Manifest:
    """The manifest of the export that readers see, after reading all of it."""
    manifest = read_manifest(campaign.run)
    for name, file in manifest.files.items():
        path = campaign.run.labels_dir / name
        assert sha256_of(path) == file.sha256
        assert len(pd.read_parquet(path)) == file.rows
    return manifest

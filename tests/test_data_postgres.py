"""The store on PostgreSQL, in a server of the tests' own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from tests.support.claim_machine import Campaigning
from tests.support.data_campaign import (
    binary_tasks,
)

pytestmark = pytest.mark.slow


def test_no_history_breaks_the_rules_of_claims(postgres_url: str) -> None:
    few = settings(
        max_examples=8,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    class OnPostgres(Campaigning):
        def __init__(self) -> None:
            super().__init__(postgres_url)

    run_state_machine_as_test(OnPostgres, settings=few)


def test_a_server_that_does_not_answer_is_one_clear_line_without_the_password(
    tmp_path: Path,
) -> None:
    with pytest.raises(PictuneError, match="nothing was saved") as raised:
        FeedbackStore.open(f"postgresql+psycopg://anna:secret@/feedback?host={tmp_path}")
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_replicas_that_start_at_once_make_one_campaign(postgres_url: str) -> None:
    at_once = Barrier(4)

    def start(_number: int) -> tuple[int, str]:
        at_once.wait()
        with FeedbackStore.open(postgres_url) as store:
            added = store.add_tasks(binary_tasks(300))
            store.comparisons.set_wordings({"overall": "Which image is better?"})
            return added, store.public_rater_id("anna")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(start, range(4)))
    assert sorted(added for added, _ in found) == [0, 0, 0, 300]
    assert len({public_id for _, public_id in found}) == 1


def test_admins_who_change_one_setting_at_once_get_no_error(
    postgres_url: str,
) -> None:
    at_once = Barrier(2, timeout=30)

    def change(name: str) -> None:
        with FeedbackStore.open(postgres_url) as store:
            boss = store.add_rater(name)
            for number in range(20):
                at_once.wait()
                store.set_paused(number % 2 == 0, by=boss)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(change, ("Ann", "Ben")))
    with FeedbackStore.open(postgres_url) as store:
        assert not store.is_paused

"""Limits on attempts, which several apps count together, on both databases."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from data.store.feedback_store import FeedbackStore
from data.store.people.attempts import Limit
from data.store.tables import sign_in_attempts
from labeling_app.app_state import AppState
from labeling_app.server import create_app
from labeling_app.settings import LabelConfig
from tests.support.data_campaign import Clock

TWO = [Limit("Ann", 2, 10)]
Replicas = tuple[FeedbackStore, FeedbackStore]


@pytest.fixture
def replicas(store_url: str, clock: Clock) -> Iterator[Replicas]:
    """Two stores with connections of their own to one database."""
    with (
        FeedbackStore.open(store_url, clock=clock) as one,
        FeedbackStore.open(store_url, clock=clock) as other,
    ):
        yield one, other


def rows(store: FeedbackStore) -> list[sa.Row[tuple[str, list[float]]]]:
    with store.database.read() as connection:
        kept = sa.select(sign_in_attempts.c.key, sign_in_attempts.c.times)
        return list(connection.execute(kept))


def test_two_apps_count_together_and_let_go_when_the_window_has_passed(
    replicas: Replicas, clock: Clock
) -> None:
    one, other = (store.attempts for store in replicas)
    assert one.count(TWO) == 0
    clock.pass_seconds(4)
    assert other.count(TWO) == 0
    assert [attempts.count(TWO) for attempts in (one, other, one)] == [6] * 3
    assert other.count([Limit("Ben", 2, 10)]) == 0
    clock.pass_seconds(6)  # the first attempt is over, the second is not
    assert one.count(TWO) == 0
    assert other.count(TWO) == 4


def test_what_is_taken_back_does_not_count(replicas: Replicas) -> None:
    one, other = (store.attempts for store in replicas)
    for _ in range(9):
        assert one.count(TWO) == 0
        other.take_back(TWO)
    assert [one.count(TWO), other.count(TWO), one.count(TWO)] == [0, 0, 10]


def test_an_attempt_too_many_for_one_limit_counts_towards_none(replicas: Replicas) -> None:
    one, other = (store.attempts for store in replicas)
    wide = Limit("address", 3, 10)
    assert [one.count([*TWO, wide]) for _ in range(5)] == [0, 0, 10, 10, 10]
    assert [other.count([wide]) for _ in range(2)] == [0, 10]


def test_attempts_at_once_are_no_more_than_one_after_the_other(replicas: Replicas) -> None:
    limits = [Limit("Ann at home", 5, 60), Limit("home", 7, 60), Limit("Ann", 9, 60)]
    with ThreadPoolExecutor(12) as pool:
        waits = list(
            pool.map(lambda number: replicas[number % 2].attempts.count(limits), range(48))
        )
    assert Counter(waits) == {0: 5, 60: 43}


def test_who_tried_is_not_readable_and_forgotten_when_it_counts_no_more(
    replicas: Replicas, clock: Clock
) -> None:
    one, other = replicas
    one.attempts.count([Limit("Ann at 10.0.0.1", 5, 10), Limit("10.0.0.1", 50, 30)])
    assert sorted(len(row.key) for row in rows(other)) == [64, 64]
    assert not any("Ann" in row.key or "10.0.0.1" in row.key for row in rows(other))
    clock.pass_seconds(10)
    other.attempts.count(TWO)
    assert [len(row.times) for row in rows(one)] == [1, 1]
    clock.pass_seconds(30)
    assert other.attempts.count(TWO) == 0
    assert [len(row.times) for row in rows(one)] == [1]


def visitor(
    store: FeedbackStore, secret: bytes = b"of the campaign", **settings: object
) -> TestClient:
    config = LabelConfig.model_validate(settings)
    return TestClient(create_app(AppState(store, lambda _id: None, config), secret))


def test_a_sign_in_at_one_replica_holds_at_another_port_and_not_in_another_campaign(
    replicas: Replicas,
) -> None:
    one = visitor(replicas[0], open=True, port=7860)
    assert one.post("/api/v1/login", json={"rater": "Ann"}).status_code == 200
    for secret, status in ((b"of the campaign", 200), (b"of another one", 401)):
        other = visitor(replicas[1], secret, open=True, port=7861)
        other.cookies = one.cookies
        assert other.get("/api/v1/me").status_code == status
        assert other.post("/api/v1/login", json={"rater": "Ben"}).status_code == 200
        assert len(other.cookies) == (1 if status == 200 else 2)

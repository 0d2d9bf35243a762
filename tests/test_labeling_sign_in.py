import io
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from data.store.tables import sign_in_attempts
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.passwords import hash_password, is_password
from labeling_app.settings import LabelConfig
from pipelines.cli import main
from tests.support.data_campaign import Clock
from tests.support.labeling_calls import submission
from tests.support.labeling_campaign import Campaign, app_of, client_of, make_campaign
from tests.support.labeling_thread import served

PASSWORD = "correct horse"
HASH = hash_password(PASSWORD)
QUICK_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_campaign(
        tmp_path_factory.mktemp("campaign"),
        prompts=("a dog",),
        images=1,
        config=TasksConfig(binary_overlap=9),
    )


@pytest.fixture
def store(campaign: Campaign) -> Iterator[FeedbackStore]:
    """The store, for which no time passes, and no attempts to sign in are on record."""
    with campaign.open_store(Clock()) as opened:
        with opened.database.write() as connection:
            connection.execute(sa.delete(sign_in_attempts))
        yield opened


@pytest.fixture
def ann(store: FeedbackStore) -> str:
    rater_id = store.add_rater("Ann")
    store.raters.set_password(rater_id, HASH)
    return rater_id


@pytest.fixture
def quick(store: FeedbackStore, ann: str) -> None:
    """Ann, whose password takes no time to check."""
    store.raters.set_password(ann, QUICK_HASH)


def client(campaign: Campaign, store: FeedbackStore, **config: bool) -> TestClient:
    return client_of(store, campaign.paths, (), **{"open": False} | config)


def login(client: TestClient, rater: str, password: str | None = None) -> int:
    return client.post("/api/v1/login", json={"rater": rater, "password": password}).status_code


def test_only_raters_with_the_right_password_get_in(
    campaign: Campaign, store: FeedbackStore, ann: str
) -> None:
    visitor = client(campaign, store)
    assert visitor.get("/api/v1/settings").json()["needs_password"] is True
    store.add_rater("without a password")
    refused = [
        ("Ann", "wrong horse"),
        ("Ann", None),
        ("Ann", ""),
        ("nobody", PASSWORD),
        ("without a password", ""),
    ]
    assert [login(visitor, *attempt) for attempt in refused] == [401] * 5
    assert store.raters.find("nobody") is None
    assert login(visitor, " Ann", PASSWORD) == 200
    assert visitor.get("/api/v1/me").json() | {"session_id": ""} == {
        "rater_id": ann,
        "name": "Ann",
        "session_id": "",
        "role": "rater",
        "trained": True,
    }


@pytest.mark.usefixtures("quick")
def test_wrong_passwords_from_elsewhere_keep_nobody_out(
    campaign: Campaign, store: FeedbackStore
) -> None:
    app = app_of(store, campaign.paths, LabelConfig())
    known = TestClient(app, client=("10.0.0.66", 1))
    assert login(known, "Ann", PASSWORD) == 200
    known.post("/api/v1/logout", json={})
    attacker = TestClient(app, client=("10.0.0.66", 2))
    assert [login(attacker, "Ann", f"guess {number}") for number in range(8)] == [401] * 5 + [
        429
    ] * 3
    refused = attacker.post("/api/v1/login", json={"rater": "Ann", "password": PASSWORD})
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert login(TestClient(app, client=("10.0.0.7", 1)), "Ann", PASSWORD) == 200
    assert login(known, "Ann", PASSWORD) == 200  # at the attacker's own address
    assert [login(known, "Ann", f"guess {number}") for number in range(8)] == [401] * 5 + [429] * 3


@pytest.mark.usefixtures("quick")
def test_guesses_from_many_addresses_at_one_name_have_an_end_and_known_browsers_still_get_in(
    campaign: Campaign, store: FeedbackStore
) -> None:
    app = app_of(store, campaign.paths, LabelConfig())
    known = TestClient(app, client=("10.0.0.7", 1))
    assert login(known, "Ann", PASSWORD) == 200
    statuses = [
        login(TestClient(app, client=(f"2001:db8:0:{number:x}::1", 1)), "Ann", f"guess {attempt}")
        for number in range(25)
        for attempt in range(5)
    ]
    assert Counter(statuses) == {401: 100, 429: 25}
    assert login(known, "Ann", PASSWORD) == 200
    assert login(TestClient(app, client=("2001:db8:0:ffff::1", 1)), "nobody", "guess") == 401


@pytest.mark.usefixtures("quick")
def test_right_passwords_do_not_count_and_wrong_ones_do_for_all_names_of_an_address(
    campaign: Campaign, store: FeedbackStore
) -> None:
    app = app_of(store, campaign.paths, LabelConfig())
    for number in range(11):
        store.raters.set_password(store.add_rater(f"rater {number}"), QUICK_HASH)
    assert {login(TestClient(app), "Ann", PASSWORD) for _ in range(60)} == {200}
    assert [login(TestClient(app), f"rater {number // 5}", "guess") for number in range(52)] == [
        401
    ] * 50 + [429] * 2


@pytest.mark.usefixtures("quick")
def test_guesses_at_once_and_from_one_network_are_no_more_than_one_after_the_other(
    campaign: Campaign, store: FeedbackStore
) -> None:
    app = app_of(store, campaign.paths, LabelConfig())

    def guess(number: int) -> int:
        return login(TestClient(app, client=(f"2001:db8::{number:x}", 1)), "Ann", "guess")

    with ThreadPoolExecutor(10) as pool:
        assert Counter(pool.map(guess, range(20))) == {401: 5, 429: 15}


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.usefixtures("quick")
def test_the_address_that_a_request_claims_counts_only_where_there_is_a_proxy(
    campaign: Campaign, store: FeedbackStore, https: bool
) -> None:
    app = app_of(store, campaign.paths, LabelConfig())
    with served(app, LabelConfig(https=https)) as url:

        def guess(*hops: str) -> int:
            body = {"rater": "Ann", "password": "guess"}
            return httpx.post(
                f"{url}/api/v1/login",
                json=body,
                headers={"X-Forwarded-For": ", ".join(hops)},
                timeout=60,
            ).status_code

        # a proxy appends the address that it sees to what the client claims
        assert [guess(f"192.0.2.{number}", "198.51.100.1") for number in range(6)] == [401] * 5 + [
            429
        ]
        assert guess("198.51.100.2") == (401 if https else 429)


def test_who_waits_for_a_password_check_keeps_no_other_request_waiting(
    campaign: Campaign, store: FeedbackStore
) -> None:
    app = app_of(store, campaign.paths, LabelConfig())
    pool, going_on = app.state.labeling.signing_in, threading.Event()
    with served(app, LabelConfig()) as url, ThreadPoolExecutor(60) as visitors:
        for _ in range(2):
            pool.submit(going_on.wait)
        body = {"rater": "nobody", "password": "guess"}
        answers = [
            visitors.submit(httpx.post, f"{url}/api/v1/login", json=body, timeout=120)
            for _ in range(60)
        ]
        while pool._work_queue.qsize() < 60:
            time.sleep(0.01)
        assert httpx.get(f"{url}/api/v1/settings", timeout=120).status_code == 200
        going_on.set()
        assert Counter(answer.result().status_code for answer in answers) == {401: 5, 429: 55}


def test_a_new_password_ends_earlier_sign_ins(
    campaign: Campaign, store: FeedbackStore, ann: str
) -> None:
    visitor = client(campaign, store)
    login(visitor, "Ann", PASSWORD)
    claimed = visitor.post("/api/v1/claim", json={}).json()["task"]
    calls: list[tuple[str, str, dict[str, object] | None]] = [
        ("GET", "me", None),
        ("POST", "leases", {"task_id": claimed["task_id"]}),
        ("POST", "submissions", submission(claimed)),
        ("GET", "history", None),
        ("GET", "progress", None),
        ("GET", f"images/{claimed['images'][0]['image_id']}", None),
        ("POST", "undo", {}),
    ]

    def statuses() -> set[int]:
        answers = (visitor.request(how, f"/api/v1/{path}", json=body) for how, path, body in calls)
        return {answer.status_code for answer in answers}

    store.raters.set_password(ann, hash_password("another horse"))
    assert statuses() == {401}
    assert login(visitor, "Ann", "another horse") == 200
    assert statuses() == {200, 201}


def test_a_cookie_that_was_copied_before_the_sign_out_opens_nothing_after_it(
    campaign: Campaign, store: FeedbackStore, ann: str
) -> None:
    store.raters.set_role(ann, "admin")
    visitor, at_home = client(campaign, store), client(campaign, store)
    for browser in (visitor, at_home):
        assert login(browser, "Ann", PASSWORD) == 200
    (name, copied), *_ = visitor.cookies.items()
    image_id = next(iter(campaign.paths))
    assert visitor.post("/api/v1/logout", json={}).status_code == 204
    assert visitor.get("/api/v1/me").status_code == 401
    with campaign.open_store() as later:  # also when the app was started again
        thief = client(campaign, later)
        thief.cookies.set(name, copied)
        for path in ("me", "history", f"images/{image_id}", "admin/tables/tasks.parquet"):
            assert thief.get(f"/api/v1/{path}").status_code == 401
        assert thief.get("/admin").status_code == 401
        assert thief.post("/api/v1/claim", json={}).status_code == 401
        assert thief.post("/api/v1/logout", json={}).status_code == 204
    assert at_home.get("/api/v1/me").status_code == 200
    assert login(visitor, "Ann", PASSWORD) == 200
    assert visitor.get("/api/v1/me").status_code == 200


def test_a_sign_in_by_name_is_worth_nothing_where_passwords_are_needed(
    campaign: Campaign, store: FeedbackStore
) -> None:
    visitor = client(campaign, store, open=True)
    assert login(visitor, "Zoe") == 200
    cookies = visitor.cookies
    closed = client(campaign, store)
    closed.cookies = cookies
    assert closed.get("/api/v1/progress").status_code == 401


@pytest.mark.usefixtures("ann")
def test_where_names_are_enough_those_with_a_password_give_it(
    campaign: Campaign, store: FeedbackStore
) -> None:
    visitor = client(campaign, store, open=True)
    assert login(visitor, "Ann") == 401
    assert login(visitor, "Ann", PASSWORD) == 200
    assert login(visitor, "Yan") == 200


def test_cookies_go_to_this_site_only_and_over_tls_where_there_is_a_proxy(
    campaign: Campaign, store: FeedbackStore
) -> None:
    for config, secure in (({"open": True}, False), ({"open": True, "https": True}, True)):
        cookie = (
            client(campaign, store, **config)
            .post("/api/v1/login", json={"rater": "Ben"})
            .headers["Set-Cookie"]
            .lower()
        )
        assert "samesite=strict" in cookie
        assert "httponly" in cookie
        assert ("secure" in cookie) == secure


def test_passwords_are_hashed_with_argon2_and_a_salt() -> None:
    assert HASH.startswith("$argon2id$")
    assert hash_password(PASSWORD) != HASH
    assert is_password(PASSWORD, HASH)
    assert not is_password(PASSWORD, "not a hash")
    with pytest.raises(PictuneError, match="has 5 characters"):
        hash_password("short")


def test_a_rater_is_added_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(*words: str, password: str = PASSWORD) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
        return main(["rater", "--runs", str(tmp_path), "--run", "first", *words])

    (tmp_path / "first").mkdir()
    assert add("--name", "Ann  Smith", "--role", "admin") == 0
    assert add("--name", "ann smith", password=f"new {PASSWORD}") == 0  # stays an admin
    assert "Ann Smith may sign in as admin" in capsys.readouterr().out
    assert add("--name", "Ben", "--role", "emperor") == 2
    assert add("--name", "Ben", password="short") == 2
    assert "ROLE emperor: unknown" in capsys.readouterr().err
    with FeedbackStore.open(f"sqlite:///{tmp_path / 'first' / 'labels' / 'feedback.db'}") as store:
        ann = store.raters.find("Ann Smith")
        assert ann is not None
        assert ann.role == "admin"
        assert is_password(f"new {PASSWORD}", ann.password_hash)
        assert store.raters.find("Ben") is None

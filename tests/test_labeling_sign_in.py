import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from data.errors import PictuneError
from data.store import FeedbackStore
from labeling_app.passwords import hash_password, is_password
from labeling_app.server import LabelConfig, create_app
from labeling_app.tasks import TasksConfig
from labeling_app.throttle import Throttle
from pipelines.cli import main
from tests.labeling_campaign import SECRET, Campaign, make_campaign

PASSWORD = "correct horse"
HASH = hash_password(PASSWORD)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_campaign(tmp_path_factory.mktemp("campaign"), prompts=("a dog",), images=1, config=TasksConfig(binary_overlap=9))


@pytest.fixture
def store(campaign: Campaign) -> Iterator[FeedbackStore]:
    with campaign.open_store() as opened:
        yield opened


@pytest.fixture
def ann(store: FeedbackStore) -> str:
    rater_id = store.add_rater("Ann")
    store.raters.set_password(rater_id, HASH)
    return rater_id


def client(campaign: Campaign, store: FeedbackStore, **config: bool) -> TestClient:
    return TestClient(create_app(store, campaign.paths.get, LabelConfig.model_validate(config), secret=SECRET, on_export=None))


def login(client: TestClient, rater: str, password: str | None = None) -> int:
    return client.post("/api/v1/login", json={"rater": rater, "password": password}).status_code


def test_only_raters_with_the_right_password_get_in(campaign: Campaign, store: FeedbackStore, ann: str) -> None:
    visitor = client(campaign, store)
    assert visitor.get("/api/v1/settings").json()["needs_password"] is True
    store.add_rater("without a password")
    refused = [("Ann", "wrong horse"), ("Ann", None), ("Ann", ""), ("nobody", PASSWORD), ("without a password", "")]
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


@pytest.mark.usefixtures("ann")
def test_too_many_attempts_have_to_wait(campaign: Campaign, store: FeedbackStore) -> None:
    visitor = client(campaign, store)
    assert [login(visitor, "Ann", f"guess {number}") for number in range(5)] == [401] * 5
    answer = visitor.post("/api/v1/login", json={"rater": "Ann", "password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60


def test_a_throttle_lets_go_when_its_window_has_passed() -> None:
    now = 0.0
    throttle = Throttle(limit=2, window_s=10, clock=lambda: now)
    assert [throttle.attempt("ann") for _ in range(3)] == [0, 0, 10]
    assert throttle.attempt("ben") == 0
    now = 10.0
    assert throttle.attempt("ann") == 0
    throttle.forget("ann")
    assert [throttle.attempt("ann") for _ in range(3)] == [0, 0, 10]


def test_a_new_password_ends_earlier_sign_ins(campaign: Campaign, store: FeedbackStore, ann: str) -> None:
    visitor = client(campaign, store)
    login(visitor, "Ann", PASSWORD)
    claimed = visitor.post("/api/v1/claim", json={}).json()["task"]
    submission = {"submission_id": "s", "task_id": claimed["task_id"], "answer": {"verdict": "good"}}
    calls: list[tuple[str, str, dict[str, object] | None]] = [
        ("GET", "me", None),
        ("POST", "leases", {"task_id": claimed["task_id"]}),
        ("POST", "submissions", submission),
        ("GET", "history", None),
        ("GET", "progress", None),
        ("GET", f"images/{claimed['images'][0]['image_id']}", None),
        ("POST", "undo", {}),
    ]
    store.raters.set_password(ann, hash_password("another horse"))
    assert {visitor.request(method, f"/api/v1/{path}", json=body).status_code for method, path, body in calls} == {401}
    assert login(visitor, "Ann", "another horse") == 200
    assert {visitor.request(method, f"/api/v1/{path}", json=body).status_code for method, path, body in calls} == {200, 201}


def test_a_page_never_acts_for_somebody_who_signed_in_after_its_rater(campaign: Campaign, store: FeedbackStore) -> None:
    tabs = client(campaign, store, open=True)  # which share a cookie
    zoe, boss = (tabs.post("/api/v1/login", json={"rater": name}).json()["rater_id"] for name in ("Zoe", "Boss"))
    assert tabs.post("/api/v1/claim", json={}, headers={"X-Pictune": zoe}).status_code == 401
    task_id = tabs.post("/api/v1/claim", json={}, headers={"X-Pictune": boss}).json()["task"]["task_id"]
    submission = {"submission_id": "of Zoe", "task_id": task_id, "answer": {"verdict": "good"}}
    refused = tabs.post("/api/v1/submissions", json=submission, headers={"X-Pictune": zoe})
    assert (refused.status_code, refused.json()["detail"]) == (401, "somebody else has signed in in this browser; sign in again")
    assert tabs.post("/api/v1/undo", json={}, headers={"X-Pictune": zoe}).status_code == 401
    assert tabs.post("/api/v1/submissions", json=submission, headers={"X-Pictune": boss}).status_code == 201
    assert store.progress(boss).mine == 1


def test_a_sign_in_by_name_is_worth_nothing_where_passwords_are_needed(campaign: Campaign, store: FeedbackStore) -> None:
    visitor = client(campaign, store, open=True)
    assert login(visitor, "Zoe") == 200
    cookies = visitor.cookies
    closed = client(campaign, store)
    closed.cookies = cookies
    assert closed.get("/api/v1/progress").status_code == 401


@pytest.mark.usefixtures("ann")
def test_where_names_are_enough_those_with_a_password_give_it(campaign: Campaign, store: FeedbackStore) -> None:
    visitor = client(campaign, store, open=True)
    assert login(visitor, "Ann") == 401
    assert login(visitor, "Ann", PASSWORD) == 200
    assert login(visitor, "Yan") == 200


def test_cookies_go_to_this_site_only_and_over_tls_where_there_is_a_proxy(campaign: Campaign, store: FeedbackStore) -> None:
    for config, secure in (({"open": True}, False), ({"open": True, "https": True}, True)):
        cookie = client(campaign, store, **config).post("/api/v1/login", json={"rater": "Ben"}).headers["Set-Cookie"].lower()
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

    assert add("--name", "Ann  Smith", "--role", "admin") == 0
    assert add("--name", "Ann Smith", password=f"new {PASSWORD}") == 0  # stays an admin
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

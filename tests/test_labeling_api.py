import io
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from data.errors import PictuneError
from data.store import FeedbackStore
from data.tables import labels
from labeling_app.server import LabelConfig, create_app
from labeling_app.tasks import TasksConfig
from tests.exchange_files import large_png
from tests.labeling_campaign import HOSTILE, SECRET, Campaign, make_campaign
from tests.labeling_thread import served

FINISHED = {"mine": 4, "done": 4, "total": 4, "seconds_left": None}
TASKS = TasksConfig(rankings_per_prompt=1, ranking_size=3)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return make_campaign(tmp_path, prompts=(HOSTILE,), images=3, config=TASKS)


@pytest.fixture
def store(campaign: Campaign) -> Iterator[FeedbackStore]:
    with campaign.open_store() as opened:
        yield opened


@pytest.fixture
def client(campaign: Campaign, store: FeedbackStore) -> Iterator[TestClient]:
    app = create_app(
        store, campaign.paths.get, LabelConfig(open=True), secret=SECRET, on_export=None
    )
    with TestClient(app) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """For tests that leave no trace: making an app takes a second."""
    shared = make_campaign(
        tmp_path_factory.mktemp("shared"), prompts=("a dog",), images=3, config=TASKS
    )
    with shared.open_store() as opened:
        yield create_app(
            opened, shared.paths.get, LabelConfig(open=True), secret=SECRET, on_export=None
        )


@pytest.fixture
def visitor(shared_app: FastAPI) -> TestClient:
    return TestClient(shared_app)


def sign_in(client: TestClient, name: str = "Ann") -> dict[str, Any]:
    answer = client.post("/api/v1/login", json={"rater": name})
    assert answer.status_code == 200
    signed_in: dict[str, Any] = answer.json()
    return signed_in


def claim(client: TestClient, kind: str | None = None) -> dict[str, Any]:
    claimed: dict[str, Any] = client.post(
        "/api/v1/claim", json={} if kind is None else {"kind": kind}
    ).json()
    return claimed


def submission(task: dict[str, Any], **changes: object) -> dict[str, Any]:
    good: dict[str, object] = (
        {"ranks": {image["image_id"]: 1 for image in task["images"]}}
        if task["kind"] == "ranking"
        else {"verdict": "good"}
    )
    return {
        "submission_id": str(uuid.uuid4()),
        "task_id": task["task_id"],
        "answer": good,
    } | changes


def live_labels(store: FeedbackStore) -> list[sa.Row[Any]]:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(labels).where(labels.c.is_live)))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "claim", {}),
        (
            "POST",
            "submissions",
            {"submission_id": "s", "task_id": "t", "answer": {"verdict": "good"}},
        ),
        ("POST", "undo", {}),
        ("POST", "leases", {"task_id": "t"}),
        ("POST", "training", {"item_id": "i", "answer": {"verdict": "good"}}),
        ("POST", "admin/export", {}),
        ("POST", "admin/pause", {}),
        ("POST", "admin/resume", {}),
        ("POST", "admin/put-back", {"image_id": "i"}),
        ("POST", "admin/remove", {"image_id": "i"}),
        ("GET", "admin/reports", None),
        ("GET", "admin/summary", None),
        ("GET", "admin/quality", None),
        ("GET", "training", None),
        ("GET", "history", None),
        ("GET", "progress", None),
        ("GET", "me", None),
        ("GET", "images/anything", None),
    ],
)
def test_nothing_works_before_signing_in(
    visitor: TestClient, method: str, path: str, body: dict[str, object] | None
) -> None:
    assert visitor.request(method, f"/api/v1/{path}", json=body).status_code == 401


def test_the_same_name_is_the_same_rater(visitor: TestClient) -> None:
    assert sign_in(visitor, "Ann  Smith ")["rater_id"] == sign_in(visitor, "Ann Smith")["rater_id"]
    assert visitor.get("/api/v1/me").json()["name"] == "Ann Smith"


def test_a_forged_cookie_signs_nobody_in(visitor: TestClient) -> None:
    sign_in(visitor)
    genuine = visitor.cookies.pop("pictune_7860")
    visitor.cookies.set("pictune_7860", "x" + genuine[1:])
    assert visitor.get("/api/v1/me").status_code == 401


def test_signing_out_ends_the_session(visitor: TestClient) -> None:
    sign_in(visitor)
    assert visitor.post("/api/v1/logout", json={}).status_code == 204
    assert visitor.get("/api/v1/me").status_code == 401


def test_an_answer_is_in_the_store_when_it_is_acknowledged(
    client: TestClient, store: FeedbackStore
) -> None:
    rater = sign_in(client)
    task = claim(client, "binary")["task"]
    answer = client.post(
        "/api/v1/submissions",
        json=submission(task, time_on_task_ms=1234, active_ms=1000, input_mode="key"),
    )
    assert answer.status_code == 201
    (label,) = live_labels(store)
    assert (label.label_id, label.revision) == (
        answer.json()["label_id"],
        answer.json()["revision"],
    )
    assert (label.time_on_task_ms, label.active_ms, label.input_mode) == (1234, 1000, "key")
    assert label.session_id == rater["session_id"]
    assert label.app_version
    assert label.guideline_version


def test_sending_an_answer_again_changes_nothing(client: TestClient, store: FeedbackStore) -> None:
    sign_in(client)
    body = submission(claim(client)["task"])
    first, second = (client.post("/api/v1/submissions", json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert len(live_labels(store)) == 1


def test_images_of_a_ranking_come_in_the_order_recorded(
    client: TestClient, store: FeedbackStore
) -> None:
    rater = sign_in(client)
    task = claim(client, "ranking")["task"]
    held = store.claim(rater["rater_id"], kind="ranking")
    places = {image["image_id"]: place for place, image in enumerate(task["images"])}
    assert held is not None
    assert tuple(places[image_id] for image_id in held.task.image_ids) == held.shown_order


def test_ties_and_unjudged_images_are_taken(client: TestClient, store: FeedbackStore) -> None:
    sign_in(client)
    task = claim(client, "ranking")["task"]
    ids = [image["image_id"] for image in task["images"]]
    assert client.post(
        "/api/v1/submissions",
        json=submission(task, answer={"ranks": dict(zip(ids, [1, 1, None], strict=True))}),
    ).is_success
    assert len(live_labels(store)) == 1


def test_undo_gives_the_task_back(client: TestClient, store: FeedbackStore) -> None:
    sign_in(client)
    task = claim(client, "binary")["task"]
    client.post("/api/v1/submissions", json=submission(task))
    claim(client, "binary")
    undone = client.post("/api/v1/undo", json={}).json()
    assert (
        undone["task"]["task_id"] == task["task_id"] == claim(client, "binary")["task"]["task_id"]
    )
    assert undone["progress"] == {"mine": 0, "done": 0, "total": 4, "seconds_left": None}
    assert live_labels(store) == []
    assert client.post("/api/v1/undo", json={}).json()["task"] is None


def test_progress_counts_to_the_end_and_then_says_so(client: TestClient) -> None:
    sign_in(client)
    for done in range(4):
        answer = claim(client)
        assert answer["progress"] == {"mine": done, "done": done, "total": 4, "seconds_left": None}
        client.post("/api/v1/submissions", json=submission(answer["task"]))
    assert claim(client) == {"task": None, "reason": "everything is labeled", "progress": FINISHED}
    assert client.get("/api/v1/progress").json()["done"] == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"answer": {"verdict": "great"}}, "answer.binary.verdict"),
        ({"answer": {}}, "answer.binary.verdict"),
        ({"answer": {"ranks": {"x": 0}}}, "answer.ranking.ranks"),
        ({"answer": {"ranks": {"x": "first"}}}, "answer.ranking.ranks.x"),
        ({"answer": []}, "answer"),
        ({"answer": {"verdict": "skip", "reason": "\ud800"}}, "answer.binary.reason"),
        ({"time_on_task_ms": -1}, "time_on_task_ms"),
        ({"time_on_task_ms": float("nan")}, "time_on_task_ms"),
        ({"time_on_task_ms": 2**40}, "time_on_task_ms"),
        ({"active_ms": -1}, "active_ms"),
        ({"input_mode": "mind"}, "input_mode"),
        ({"task_id": "a\x00b"}, "task_id"),
        ({"answer": {"verdict": "skip", "comment": "a\x00b"}}, "answer.binary.comment"),
        ({"submission_id": ""}, "submission_id"),
        ({"submission_id": "x" * 10_000}, "submission_id"),
        ({"rater_id": "someone else"}, "rater_id"),
    ],
)
def test_a_bad_body_is_refused_with_field_and_reason(
    visitor: TestClient, changes: dict[str, object], field: str
) -> None:
    sign_in(visitor)
    body = json.dumps(submission(claim(visitor, "binary")["task"], **changes))
    answer = visitor.post(
        "/api/v1/submissions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["field"].startswith(field)
    assert detail["reason"]


def test_a_page_fetches_ahead_and_finds_its_tasks_again(client: TestClient) -> None:
    sign_in(client)
    held: list[str] = []
    for _ in range(3):
        held.append(client.post("/api/v1/claim", json={"except": held}).json()["task"]["task_id"])
    assert len(set(held)) == 3
    assert claim(client)["task"]["task_id"] in held
    assert (
        client.post(
            "/api/v1/claim", json={"except": [str(number) for number in range(31)]}
        ).status_code
        == 422
    )


def test_a_hold_is_renewed_until_the_task_is_answered(client: TestClient) -> None:
    sign_in(client)
    task = claim(client)["task"]
    renewed = client.post("/api/v1/leases", json={"task_id": task["task_id"]})
    assert renewed.json()["lease_expires_at"] >= task["lease_expires_at"]
    client.post("/api/v1/submissions", json=submission(task))
    for task_id in (task["task_id"], "nowhere"):
        assert client.post("/api/v1/leases", json={"task_id": task_id}).status_code == 404


def test_the_history_shows_what_was_seen_and_can_be_edited(client: TestClient) -> None:
    sign_in(client)
    ranking, binary = claim(client, "ranking")["task"], claim(client, "binary")["task"]
    for task in (ranking, binary):
        client.post("/api/v1/submissions", json=submission(task))
    newest, oldest = client.get("/api/v1/history").json()["labels"]
    assert (newest["task_id"], newest["answer"], newest["prompt"]) == (
        binary["task_id"],
        {"verdict": "good"},
        HOSTILE,
    )
    assert oldest["images"] == ranking["images"]
    edited = submission(newest, answer={"verdict": "bad", "comment": "on second thoughts"})
    assert client.post("/api/v1/submissions", json=edited).json()["revision"] == 2
    (again,) = client.get("/api/v1/history", params={"limit": 1}).json()["labels"]
    assert again["answer"] == edited["answer"]
    assert client.get("/api/v1/history", params={"limit": 0}).status_code == 422


def test_a_paused_campaign_gives_no_tasks_but_takes_answers(
    client: TestClient, store: FeedbackStore
) -> None:
    sign_in(client)
    task = claim(client)["task"]
    store.set_paused(True)
    assert client.get("/api/v1/settings").json()["paused"]
    assert claim(client)["task"] is None
    assert "paused" in claim(client)["reason"]
    assert client.post("/api/v1/submissions", json=submission(task)).status_code == 201
    store.set_paused(False)
    assert claim(client)["task"]


def test_a_page_learns_what_it_needs_before_the_sign_in(visitor: TestClient) -> None:
    answer = visitor.get("/api/v1/settings").json()
    assert answer["needs_password"] is False
    assert answer["guideline_version"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_a_form_of_another_site_cannot_write(
    visitor: TestClient, headers: dict[str, str], status: int
) -> None:
    assert (
        visitor.post("/api/v1/login", content=b'{"rater": "Ann"}', headers=headers).status_code
        == status
    )


@pytest.mark.parametrize(
    ("headers", "get", "post"),
    [
        ({}, 200, 200),  # not a browser
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, 200, 200),
        ({"Sec-Fetch-Site": "none"}, 200, 403),  # the address bar
        ({"Sec-Fetch-Site": "same-site"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403, 403),
        ({"Origin": "https://testserver"}, 200, 200),  # behind a proxy with TLS
        ({"Origin": "https://label.example", "Host": "label.example"}, 200, 200),
        ({"Origin": "https://label.example:8443", "Host": "Label.example:8443"}, 200, 200),
        ({"Origin": "https://label.example", "Host": "label.example:443"}, 200, 200),
        ({"Origin": "https://label.example", "Host": "127.0.0.1:7860"}, 403, 403),
        ({"Origin": "https://label.example", "X-Forwarded-Host": "label.example"}, 403, 403),
        ({"Origin": "http://testserver:8000"}, 403, 403),
        ({"Origin": "http://sub.testserver"}, 403, 403),
        ({"Origin": "http://testserver.example", "Sec-Fetch-Site": "same-origin"}, 403, 403),
        ({"Origin": "null"}, 403, 403),
        ({"Origin": ""}, 403, 403),
        ({"Origin": "http://[:"}, 403, 403),
    ],
)
def test_a_call_comes_from_a_page_of_the_app_or_from_no_page(
    visitor: TestClient, headers: dict[str, str], get: int, post: int
) -> None:
    assert visitor.get("/api/v1/settings", headers=headers).status_code == get
    assert visitor.post("/api/v1/login", json={"rater": "Ann"}, headers=headers).status_code == post
    for path, what in (
        ("/", "gradio_config"),
        ("/admin", "Pictune: admin"),
        ("/ui/label.js", "class Page"),
    ):
        assert (
            what in visitor.get(path, headers=headers).text
        )  # a link may lead there from anywhere


def test_large_bodies_are_refused_whatever_length_they_claim(visitor: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    assert visitor.post("/api/v1/login", content=b" " * 100_000, headers=headers).status_code == 413
    assert visitor.post("/api/v1/login", content=chunks(), headers=headers).status_code == 413


def test_nothing_can_be_sent_to_the_routes_of_gradio(visitor: TestClient) -> None:
    assert visitor.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "ui/",
        "static/",
        "static/js/",
        "assets/",
        "gradio_api/file=",
        "gradio_api/proxy=",
        "api/v1/images/",
    ],
)
def test_odd_addresses_get_one_line(visitor: TestClient, folder: str) -> None:
    sign_in(visitor)
    for name in ("a" * 5000, "a/" * 2500, "%00", "%2e%2e/%2e%2e/etc/passwd", "%ff", "nothing/"):
        answer = visitor.get(f"/{folder}{name}")  # an error of the server would be raised here
        assert answer.status_code == 404
        assert len(answer.json()["detail"]) < 100


def test_no_request_reaches_gradio(visitor: TestClient) -> None:
    for path in (
        "config",
        "gradio_api/info",
        "gradio_api/startup-events",
        "gradio_api/heartbeat/1",
        "monitoring",
        "login",
        "admin/",
    ):
        answer = visitor.get(f"/{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    "headers",
    [
        {
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "evil.example",
        },
        {"X-Gradio-Server": "http://evil.example"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"Host": 'evil.example"'},
        {"Host": ""},
    ],
)
def test_no_header_shows_in_the_page(visitor: TestClient, headers: dict[str, str]) -> None:
    for path in ("/", "/?deep_link=evil.example&__theme=dark", "/theme.css", "/manifest.json"):
        answer = visitor.get(path, headers=headers)
        assert answer.text == visitor.get(path.split("?")[0]).text
        assert "evil" not in answer.text + str(answer.headers)
    page = visitor.get("/").text
    assert '"root":location.origin' in page
    assert not re.search("testserver|gradio.invalid", page)


def test_every_answer_tells_browsers_to_be_careful(visitor: TestClient) -> None:
    for path in ("/", "/api/v1/settings", "/api/v1/nowhere", "/admin"):
        headers = visitor.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"rater": ""}',
        b'{"rater": "a\\u0000b"}',
        b'{"rater": 7}',
    ],
)
def test_a_body_that_is_no_sign_in_is_refused(visitor: TestClient, body: bytes) -> None:
    answer = visitor.post(
        "/api/v1/login", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert answer.json()["detail"]


def test_an_answer_that_does_not_fit_its_task_is_refused(
    client: TestClient, store: FeedbackStore
) -> None:
    sign_in(client)
    task = claim(client, "binary")["task"]
    assert (
        client.post(
            "/api/v1/submissions", json=submission(task, answer={"ranks": {"nothing": 1}})
        ).status_code
        == 422
    )
    assert (
        client.post("/api/v1/submissions", json=submission(task, task_id="nowhere")).status_code
        == 404
    )
    assert live_labels(store) == []
    assert client.get("/health").json()["writes_refused"] == 2


def test_a_rater_that_the_store_does_not_know_is_signed_out(
    client: TestClient, store: FeedbackStore
) -> None:
    sign_in(client)
    with store.database.write() as connection:
        connection.execute(sa.text("DELETE FROM raters"))
    assert client.post("/api/v1/claim", json={}).status_code == 401


def test_an_image_is_served_as_pixels_without_metadata(
    client: TestClient, campaign: Campaign
) -> None:
    sign_in(client)
    image_id, path = next(iter(campaign.paths.items()))
    answer = client.get(f"/api/v1/images/{image_id}")
    assert b"secret model" in path.read_bytes()
    assert b"secret model" not in answer.content
    with Image.open(path) as original, Image.open(io.BytesIO(answer.content)) as served:
        assert served.tobytes() == original.tobytes()


def test_an_image_of_too_many_pixels_is_not_decoded(client: TestClient, campaign: Campaign) -> None:
    sign_in(client)
    image_id, path = next(iter(campaign.paths.items()))
    path.write_bytes(large_png(13_000, 13_000))
    answer = client.get(f"/api/v1/images/{image_id}")
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "the image has too many pixels to be shown",
    )


def test_four_images_are_decoded_at_once_and_no_other_request_waits_for_them(
    campaign: Campaign, store: FeedbackStore
) -> None:
    going_on, counting, decoding, most = threading.Event(), threading.Lock(), 0, 0

    def slow_path(image_id: str) -> Path | None:
        nonlocal decoding, most
        with counting:
            decoding += 1
            most = max(most, decoding)
        going_on.wait()
        with counting:
            decoding -= 1
        return campaign.paths.get(image_id)

    config = LabelConfig(open=True)
    app = create_app(store, slow_path, config, secret=SECRET, on_export=None)
    with (
        served(app, config) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=120) as rater,
        ThreadPoolExecutor(60) as pages,
    ):
        rater.post("/login", json={"rater": "Ann"})
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in rater.cookies.items())}
        address = f"{url}/api/v1/images/{next(iter(campaign.paths))}"
        answers = [
            pages.submit(httpx.get, address, headers=headers, timeout=120) for _ in range(60)
        ]
        try:
            while decoding < 4:
                time.sleep(0.01)
            assert rater.post("/claim", json={}).json()["task"] is not None
        finally:
            going_on.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert most == 4


@pytest.mark.parametrize("name", ["nothing", "..%2Ffeedback.db", "%2Fetc%2Fpasswd", "0.png", "%00"])
def test_nothing_but_images_of_the_campaign_is_served(visitor: TestClient, name: str) -> None:
    sign_in(visitor)
    assert visitor.get(f"/api/v1/images/{name}").status_code == 404


def test_a_damaged_image_is_not_found(client: TestClient, campaign: Campaign) -> None:
    sign_in(client)
    image_id, path = next(iter(campaign.paths.items()))
    path.write_bytes(path.read_bytes()[:60])
    assert client.get(f"/api/v1/images/{image_id}").status_code == 404
    path.unlink()
    assert client.get(f"/api/v1/images/{image_id}").status_code == 404


def test_a_store_that_cannot_write_says_so_and_is_counted(
    client: TestClient, store: FeedbackStore
) -> None:
    sign_in(client)
    task = claim(client)["task"]
    with store.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE labels RENAME TO labels_elsewhere"))
    answer = client.post("/api/v1/submissions", json=submission(task))
    assert answer.status_code == 503
    assert "sqlite" not in answer.text
    assert client.get("/health").json()["writes_failed"] == 1


def test_a_claim_and_a_submission_are_one_transaction_each(
    client: TestClient, store: FeedbackStore
) -> None:
    sign_in(client)
    begun: list[sa.Connection] = []
    sa.event.listen(store.database.engine, "begin", begun.append)
    task = claim(client)["task"]
    assert len(begun) == 1
    client.post("/api/v1/submissions", json=submission(task)).raise_for_status()
    assert len(begun) == 2


def test_the_page_asks_no_other_machine_for_anything(visitor: TestClient) -> None:
    page = visitor.get("/")
    assert page.status_code == 200
    assert "fonts.googleapis" not in visitor.get("/theme.css").text
    assert (
        visitor.get("/ui/label.js").headers["content-type"].split("/")[1].startswith("javascript")
    )


def test_labels_are_exported_while_the_app_runs_and_when_it_ends(
    campaign: Campaign, store: FeedbackStore
) -> None:
    exports: list[int] = []
    app = create_app(
        store,
        campaign.paths.get,
        LabelConfig(open=True, export_every_s=0.05),
        secret=SECRET,
        on_export=lambda: exports.append(1),
    )
    with TestClient(app) as client:
        while len(exports) < 2:  # the second begins when the first was noted
            pass
        assert client.get("/health").json()["last_export"]
        running = len(exports)
    assert len(exports) > running


def test_an_export_that_fails_is_reported_and_does_not_stop_the_app(
    campaign: Campaign, store: FeedbackStore
) -> None:
    def fail() -> None:
        raise PictuneError("labels/latest: no room left; free some")

    app = create_app(
        store,
        campaign.paths.get,
        LabelConfig(open=True, export_every_s=0.01),
        secret=SECRET,
        on_export=fail,
    )
    with TestClient(app) as client:
        while not (error := client.get("/health").json()["export_error"]):
            pass
        assert "no room left" in error
        assert sign_in(client)


def test_missing_guidelines_are_a_users_error(
    campaign: Campaign, store: FeedbackStore, tmp_path: Path
) -> None:
    with pytest.raises(PictuneError, match="name a Markdown file"):
        create_app(
            store,
            campaign.paths.get,
            LabelConfig(guidelines=tmp_path / "none.md"),
            secret=SECRET,
            on_export=None,
        )

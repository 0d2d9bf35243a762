"""Pages of other origins can do nothing to the labeling app.

That holds even where browsers send its cookie along, as they do with calls from within its site.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, Response

from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    Server,
    add_accounts,
    open_page,
    see,
    serving,
    sign_in,
)
from tests.support.labeling_campaign import Campaign, make_campaign

pytestmark = pytest.mark.slow

PASSWORD = "correct horse"
WRITES = (
    "api/v1/undo",
    "api/v1/admin/pause",
    "api/v1/logout",
    "admin/gradio_api/run/predict",
    "gradio_api/queue/join",
    "gradio_api/run/0",
)
READS = (
    "api/v1/me",
    "api/v1/history",
    "api/v1/admin/thumbnails/x",
    "api/v1/openapi.json",
    "",
    "config",
)
ATTACK = """
async ([app, writes, reads]) => {
  const readable = [];
  const fetched = (path, options) =>
    fetch(`${app}/${path}`, { credentials: "include", ...options }).then(
      (answer) => {
        if (answer.type === "opaque") return;
        readable.push(`${options.method} ${path}: ${answer.status}`);
      },
      () => {},
    );
  const posted = (path, type) =>
    new Promise((done) => {
      const frame = Object.assign(document.createElement("iframe"), { name: `${path} ${type}` });
      const target = { action: `${app}/${path}`, target: frame.name };
      const form = document.createElement("form");
      Object.assign(form, { method: "POST", enctype: type, ...target });
      form.append(Object.assign(document.createElement("input"), { name: "{}", value: "" }));
      document.body.append(frame, form);
      frame.onload = done;
      form.submit();
    });
  const json = { "Content-Type": "application/json" };
  const forms = ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"];
  for (const path of writes) {
    for (const method of ["POST", "PUT", "DELETE"]) {
      await fetched(path, { method, headers: json, body: "{}" });
    }
    await fetched(path, { method: "POST", headers: { ...json, "X-Pictune": "1" }, body: "{}" });
    await fetched(path, { method: "POST", body: "{}" });
    await fetched(path, { method: "POST", mode: "no-cors", body: "{}" });
    await fetched(path, { method: "POST", mode: "no-cors", body: new URLSearchParams("a=1") });
    for (const type of ["application/json", "text/plain"]) {
      navigator.sendBeacon(`${app}/${path}`, new Blob(["{}"], { type }));
    }
    for (const type of forms) await posted(path, type);
    const image = new Image();
    image.src = `${app}/${path}`;
    await image.decode().catch(() => {});
  }
  for (const path of reads) await fetched(path, { method: "GET" });
  return readable;
}
"""


class Stranger(BaseHTTPRequestHandler):
    """A page of somebody else."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")
        self.wfile.write(
            b'<iframe sandbox="allow-scripts allow-forms" srcdoc="<p>of no origin</p>">'
        )
        self.wfile.write(b"</iframe>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def stranger() -> Iterator[int]:
    """Serves the page; yields its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    only_binary = TasksConfig(binary_overlap=9, rankings_per_prompt=0)
    root = tmp_path_factory.mktemp("campaign")
    made = make_campaign(root, prompts=("a dog",), images=3, config=only_binary)
    add_accounts(made, ["Ann", "Ben"], PASSWORD)
    with made.open_store() as store:
        for name in ("Ann", "Ben"):
            store.raters.set_role(store.rater_id_of("human", name), "admin")
    return made


@pytest.fixture(scope="module")
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


def grants(headers: Iterable[str]) -> list[str]:
    """Names of the headers that let another origin do something."""
    return [header for header in headers if header.startswith("access-control")]


@pytest.mark.parametrize(
    ("name", "hosts"),
    [("Ann", ("127.0.0.1", "127.0.0.1")), ("Ben", ("app.team.localhost", "blog.team.localhost"))],
    ids=["another port", "a sibling domain"],
)
def test_a_page_of_the_same_site_changes_and_reads_nothing(
    browser: Browser, campaign: Campaign, server: Server, name: str, hosts: tuple[str, str]
) -> None:
    host, elsewhere = hosts
    app = f"http://{host}:{server.port}"
    page = open_page(browser, app)
    sign_in(page, name, PASSWORD)
    page.get_by_label("Close the guidelines").click()
    see(page)
    page.get_by_role("button", name="Good").click()
    page.get_by_text("Saved ✓").wait_for()

    granted: list[str] = []

    def note(answer: Response) -> None:
        granted.extend(f"{answer.url}: {header}" for header in grants(answer.headers))

    other = page.context.new_page()
    other.on("response", note)
    with stranger() as port:
        other.goto(f"http://{elsewhere}:{port}")
        for frame in other.frames:
            assert frame.evaluate(ATTACK, [app, WRITES, READS]) == []
        other.goto("about:blank")
    assert granted == []
    page.reload()
    page.locator(".who", has_text=name).wait_for()  # still signed in
    with campaign.open_store() as store:
        assert store.progress(store.rater_id_of("human", name)).mine == 1
        assert not store.is_paused


def test_links_from_anywhere_lead_to_the_page_and_the_admin_page(
    browser: Browser, server: Server
) -> None:
    page = browser.new_context().new_page()
    with stranger() as port:
        for path, title in (("/", "Pictune"), ("/admin", "Pictune: admin")):
            page.goto(f"http://localhost:{port}")
            page.evaluate("(url) => { location = url; }", server.url + path)
            page.wait_for_url(server.url + path)
            page.wait_for_function("(title) => document.title === title", arg=title)

"""The playground in a real browser: drawn, compared, taken away, and voted on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from data.runs import RunFolder
from data.schema import LABELS_COMPARISONS, read_table
from data.tables.parquet import export
from finetune.model.lora import LORA_FILE
from finetune.settings.adapter_kinds import BASE
from pipelines.run.campaign import open_store
from tests.support.play_run import TUNED, copied
from tests.support.play_server import PATIENCE_S, playing

WAIT_MS = 1000 * PATIENCE_S


@pytest.fixture(scope="module")
def run(play_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return copied(play_run, tmp_path_factory.mktemp("played"))


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """The addresses of all requests of all visitors."""
    return []


@pytest.fixture(scope="module")
def url(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with playing(run, tmp_path_factory.mktemp("log") / "log") as address:
        yield address


def visit(browser: Browser, url: str, requests: list[str], width: int = 1440) -> Page:
    """The page of a new visitor."""
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    button(page, "Draw").wait_for()
    return page


@pytest.fixture
def page(browser: Browser, url: str, requests: list[str]) -> Iterator[Page]:
    opened = visit(browser, url, requests)
    yield opened
    opened.context.close()
    assert [one for one in requests if not one.startswith((url, "data:", "blob:"))] == []


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def draw(page: Page) -> None:
    """Press the button and wait for the last image."""
    button(page, "Draw").click()
    page.locator("#status", has_text="images in").wait_for()
    page.locator("#images .thumbnail-lg img").last.wait_for()


def captions(page: Page) -> list[str]:
    return page.locator("#images .caption-label").all_inner_texts()


def contents(page: Page) -> list[bytes]:
    """The files of the images that the page shows."""
    sources = page.locator("#images .thumbnail-lg img").all()
    addresses = [str(image.get_attribute("src")) for image in sources]
    return [page.request.get(address).body() for address in addresses]


def test_base_and_tuned_model_draw_side_by_side_with_reward_and_verdict(page: Page) -> None:
    draw(page)
    shown = captions(page)
    assert [one.split("\n")[0] for one in shown] == [
        "base · seed 0",
        f"{TUNED} · seed 0",
        "base · seed 1",
        f"{TUNED} · seed 1",
    ]
    for one in shown:
        assert re.search(r"\nreward \d\.\d\d ± \d\.\d\d\n(✓ right|✗ not right)$", one), one
    assert page.locator(".heads b").all_inner_texts()[:2] == ["base", TUNED]
    files = contents(page)
    assert files[0] != files[1]
    assert files[0].startswith(b"\x89PNG")


def test_at_strength_0_all_draw_the_same(page: Page) -> None:
    page.get_by_label("number input for Adapter strength").fill("0")
    page.get_by_label("First seed").fill("5")
    page.get_by_label("number input for Images of each model").fill("1")
    page.locator("#prompts").get_by_text("A dog on the moon.").click()
    draw(page)
    assert [one.split(" · ")[0] for one in captions(page)] == ["base", TUNED]
    base, tuned = contents(page)
    assert base == tuned
    button(page, "Other seeds").click()
    page.locator(".caption-label", has_text="base · seed 6").wait_for()


def test_a_slider_for_each_adapter_draws_a_mix_at_once(page: Page) -> None:
    page.get_by_label("number input for Images of each model").fill("1")
    page.get_by_text("Mix", exact=True).first.click()
    weight = page.get_by_label(f"number input for Weight of {TUNED}")
    for value in ("0.5", "1"):
        weight.fill(value)
        weight.blur()
        page.locator(".caption-label", has_text=f"{TUNED}*{value} · seed 0").wait_for()
        page.locator("#status", has_text="3 images in").wait_for()
    base, tuned, mixed = contents(page)
    assert mixed == tuned != base
    page.get_by_label("One adapter a step, at random").check()
    page.locator("#status", has_text="3 images in").wait_for()
    weight.fill("0")
    weight.blur()
    page.locator("#status", has_text="2 images in").wait_for()


def test_an_image_and_an_adapter_are_taken_home_with_the_line_that_loads_it(
    page: Page, run: RunFolder
) -> None:
    draw(page)
    first = contents(page)[0]
    page.locator(".thumbnail-item").first.click()
    with page.expect_download() as saved:
        page.get_by_label("Download", exact=True).click()
    assert saved.value.path().read_bytes() == first
    assert saved.value.suggested_filename == "a-cat-and-a-dog_base_seed-0.png"
    page.get_by_label("Close").click()
    page.get_by_text("Take it with you").click()
    line = f"pipeline.load_lora_weights('{run.finetune_dir(TUNED)}', adapter_name=\"pictune\")"
    page.locator(".cm-content", has_text=line).wait_for()
    page.locator(".cm-content", has_text="adapter_weights=1").wait_for()
    colors = page.locator(".cm-content, .cm-content span").evaluate_all(
        "(parts) => [...new Set(parts.map((part) => getComputedStyle(part).color))]"
    )
    assert len(colors) == 1  # that of the page's text
    with page.expect_download() as lora:
        page.locator("#adapter").click()
    assert lora.value.path().read_bytes() == (run.finetune_dir(TUNED) / LORA_FILE).read_bytes()


def test_a_visitor_votes_and_sends_the_address_of_a_find(
    browser: Browser, requests: list[str], page: Page, run: RunFolder
) -> None:
    page.get_by_label("Prompt").first.fill("A fox & a pig.")
    page.get_by_label("First seed").fill("5")
    page.get_by_label("number input for Adapter strength").fill("0.5")
    page.get_by_label("number input for Images of each model").fill("1")
    draw(page)
    button(page, "This one rwl · seed 5").click()
    page.locator("#note", has_text="Saved: 1 comparison by visitor").wait_for()
    page.get_by_label("Your name, for votes").fill("Ann")
    button(page, "This one base · seed 5").click()
    note = page.locator("#note", has_text="Saved: 1 comparison by Ann, label")
    note.wait_for()
    pressed = page.get_by_role("button", pressed=True).all_inner_texts()
    assert [" ".join(one.split()) for one in pressed] == ["This one base · seed 5"]
    with open_store(run) as store:
        export(store, run)
    votes = read_table(run.latest / "labels_comparisons.parquet", LABELS_COMPARISONS).to_pylist()
    better = [row["models"][["first", "second"].index(row["answer"])] for row in votes]
    assert better == [TUNED, BASE]
    assert votes[1]["label_id"] in note.inner_text()
    assert {(row["source"], row["app_version"]) for row in votes} == {("imported", "playground")}

    page.wait_for_url("**prompt=A+fox+%26+a+pig.**")
    link = f"{page.url.replace('seed=5', 'seed=-7')}&models=unknown&steps=a"
    colleague = visit(browser, link, requests)
    fields = {"First seed": "0", "number input for Adapter strength": "0.5"}
    for label, value in fields.items():
        expect(colleague.get_by_label(label)).to_have_value(value)
    colleague.goto(page.url)
    expect(colleague.get_by_label("Prompt").first).to_have_value("A fox & a pig.")
    draw(colleague)
    assert contents(colleague) == contents(page)


def test_an_empty_prompt_is_a_message_on_the_page(page: Page) -> None:
    page.get_by_label("Prompt").first.fill("   ")
    button(page, "Draw").click()
    page.get_by_text("The prompt is empty: type what to draw, or pick one below it.").wait_for()
    page.get_by_label("Prompt").first.fill("A cat.")
    draw(page)
    assert len(captions(page)) == 4


def test_a_second_visitor_sees_the_place_in_the_queue(
    browser: Browser, url: str, requests: list[str]
) -> None:
    first, second = visit(browser, url, requests), visit(browser, url, requests, width=390)
    first.get_by_label("number input for Images of each model").fill("8")
    first.get_by_label("number input for Steps").fill("20")
    button(first, "Draw").click()
    first.locator("#status", has_text="step ").wait_for()
    button(second, "Draw").click()
    second.locator("#status", has_text="queue: 1/1").wait_for()
    second.locator("#status", has_text="images in").wait_for()
    assert second.evaluate("document.documentElement.scrollWidth") <= 390
    first.context.close()
    second.context.close()


def test_no_file_of_the_run_is_served_and_no_other_site_may_draw(
    page: Page, run: RunFolder
) -> None:
    url = page.url.rstrip("/")
    for file in (run.images_table, run.config_file, Path("README.md").resolve()):
        assert page.request.get(f"{url}/gradio_api/file={file}").status == 404
    body = {"data": [], "fn_index": 0, "session_hash": "x"}
    foreign = {"Origin": "http://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    sent = page.request.post(f"{url}/gradio_api/queue/join", data=body, headers=foreign)
    assert sent.status == 403

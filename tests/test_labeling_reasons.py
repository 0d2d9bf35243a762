"""Reasons for skips, reports and bad verdicts that a lead sets."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from labeling_app.campaign.tasks import TasksConfig
from labeling_app.reasons import OURS, REPORT, offered_reasons
from labeling_app.settings import LabelConfig
from labeling_app.words import read_words
from pipelines.cli import main
from tests.support.data_campaign import Campaign
from tests.support.labeling_browser import SETTINGS, kind_of, open_page, see, serving, sign_in
from tests.support.labeling_rater import PASSWORD, answers, last_answer, prepare, wait_until

OWN: dict[str, Any] = {
    "bad": ["Wrong count", "Blurry"],
    "skip_several": ["All the same"],
}


def test_ours_are_offered_in_all_languages_where_a_lead_sets_none() -> None:
    words = read_words()
    config = LabelConfig.model_validate({"reasons": OWN})
    offered = offered_reasons(config.reasons, words)
    assert [reason.stored for reason in offered["bad"]] == ["Wrong count", "Blurry"]
    assert [reason.stored for reason in offered["skip_several"]] == ["All the same", REPORT]
    assert [reason.stored for reason in offered["skip"]] == list(OURS["skip"])
    assert offered["skip"][0].words["de"] == words["de"]["reason.cannot_tell"]
    assert [reason.reports for reason in offered["skip_several"]] == [False, True]
    # what is stored is English as it always was, whatever the words are
    for question, reasons in offered_reasons({}, words).items():
        assert [reason.words["en"] for reason in reasons] == list(OURS[question])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('label.reasons.bat=["Blurry"]', "label.reasons.bat"),
        ('label.reasons.bad=["Blurry", "blurry"]', "bad has 'Blurry' twice; name each once"),
        ("label.reasons.skip=[]", "skip has 0 reasons; give 1 to 9, one a key"),
        (f"label.reasons.skip={json.dumps(list('abcdefghij'))}", "skip has 10 reasons"),
        ('label.reasons.bad=["  "]', "at least 1 character"),
        ('label.reasons.skip_several=["An unsafe one"]', "the page always offers a report there"),
        ("label.reasons.bad=[3]", "label.reasons.bad"),
    ],
)
def test_wrong_reasons_are_one_line(
    setting: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Campaign(tmp_path / "small", n_images=2).store.close()
    run = ["--runs", str(tmp_path), "--run", "small"]
    assert main(["label", *run, "--open", "--set", setting]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1, said


def next_of(page: Page, kind: str) -> None:
    """Go on to a task of this kind, by the good verdict or equal ranks."""
    while kind_of(page) != kind:
        see(page)
        for key in ["1"] if kind_of(page) == "binary" else ["1", "1", "1", "Enter"]:
            page.keyboard.press(key)
        page.wait_for_timeout(200)
    see(page)


@pytest.mark.slow
def test_raters_give_the_leads_reasons_and_read_them_in_their_language(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=4, ranking_size=3))
    (tmp_path / SETTINGS).write_text(json.dumps({"reasons": OWN}))
    with serving(tmp_path) as server:
        page = open_page(browser, server.url)
        sign_in(page, "Ann", PASSWORD)
        page.keyboard.press("g")
        next_of(page, "binary")
        page.keyboard.press("2")
        expect(page.get_by_role("heading", name="What is wrong with it?")).to_be_visible()
        assert "bad" not in [row.get("verdict") for row in answers(campaign, "Ann")]
        page.get_by_role("button", name="Blurry").click()
        wait_until(lambda: last_answer(campaign, "Ann").get("reason") == "Blurry")
        assert last_answer(campaign, "Ann")["verdict"] == "bad"

        next_of(page, "ranking")
        page.keyboard.press("s")
        expect(page.locator("[data-slot=choices] button")).to_have_text(
            ["All the same1", "An image is unsafe2"]
        )
        page.keyboard.press("Escape")

        page.locator("nav [data-do=settings]").click()
        page.locator("#language").select_option("de")
        page.locator("[data-kind]:visible").wait_for()
        page.get_by_role("button", name="Verlauf").click()
        expect(page.locator("[data-slot=labels]")).to_contain_text("Schlecht: Blurry")

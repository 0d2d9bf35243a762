"""The words of the raters' page: one file a language, and none anywhere else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data.errors import PictuneError
from labeling_app.app_state import STATIC
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.page import skeleton
from labeling_app.rater.responses import NO_TASK
from labeling_app.reasons import OURS
from labeling_app.words import ENGLISH, FOLDER, Word, read_words
from tests.support.labeling_calls import claim, sign_in, submission
from tests.support.labeling_campaign import client_of, make_campaign

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.json"))
PAGE = skeleton()
SCRIPTS = "".join(path.read_text(encoding="utf-8") for path in sorted(STATIC.glob("*.js")))


def file_of(language: str) -> dict[str, Word]:
    """Return what a shipped file itself has."""
    words: dict[str, Word] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return words


def placeholders(word: Word) -> set[str]:
    """Return the names in braces, in all forms together."""
    forms = word.values() if isinstance(word, dict) else [word]
    return {name for form in forms for name in re.findall(r"\{(\w+)\}", form)}


@pytest.mark.parametrize("language", SHIPPED)
def test_a_shipped_language_has_every_word_and_no_other(language: str) -> None:
    assert {ENGLISH, "de"} <= set(SHIPPED)
    english, words = file_of(ENGLISH), file_of(language)
    assert list(words) == list(english)  # in the same order, so that files can be read side by side
    for key, word in words.items():
        assert placeholders(word) == placeholders(english[key]), key
        assert isinstance(word, dict) == isinstance(english[key], dict), key
        if isinstance(word, dict):
            assert set(word) == {"one", "other"}, key  # CLDR's of English and of German


def test_every_word_is_used_every_key_has_one_and_the_page_has_none_of_its_own() -> None:
    written = set(file_of(ENGLISH)) - {"language"}
    used = {key for reasons in OURS.values() for key in reasons.values()}
    used |= {f"rest.{code}" for code in NO_TASK} | {f"reasons.{question}" for question in OURS}
    used |= set(re.findall(r'"((?!pictune)[a-z_]+\.[a-z0-9_]+)"', PAGE + SCRIPTS))
    assert used <= written
    by_answer = re.compile(r"(said|refusal)\.\w+|history\.\w+_name")
    assert [key for key in written - used if not by_answer.fullmatch(key)] == []
    assert set(re.findall(r">\s*([A-Za-z][^<]+?)\s*<", PAGE)) == {"Pictune"}


def test_a_language_that_lacks_words_has_them_in_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "en.json").write_text('{"bar.undo": "Undo", "bar.help": "Help"}', "utf-8")
    (tmp_path / "fr.json").write_text('{"bar.undo": "Annuler"}', "utf-8")
    monkeypatch.setattr("labeling_app.words.FOLDER", tmp_path)
    assert read_words()["fr"] == {"bar.undo": "Annuler", "bar.help": "Help"}
    (tmp_path / "fr.json").write_text('{"bar.undo": ', "utf-8")
    with pytest.raises(PictuneError, match=r"fr\.json:1: not valid JSON"):
        read_words()


@pytest.fixture
def app_with(tmp_path: Path) -> Any:
    """Return a client of an app with these settings."""
    campaign = make_campaign(tmp_path, prompts=("A dog.",), images=2, config=TasksConfig())

    def start(**settings: Any) -> TestClient:
        return client_of(campaign.open_store(), campaign.paths, **settings)

    return start


def test_the_app_serves_all_languages_and_the_preferred_one(app_with: Any) -> None:
    answer = app_with(language="de").get("/api/v1/words").json()
    assert answer["preferred"] == "de"
    assert sorted(answer["languages"]) == SHIPPED
    with pytest.raises(PictuneError, match="no words in tlh; choose de or en"):
        app_with(language="tlh")


def test_a_label_keeps_the_version_of_the_guidelines_in_the_raters_language(
    app_with: Any, tmp_path: Path
) -> None:
    (tmp_path / "rules.md").write_text("Judge it.", "utf-8")
    (tmp_path / "rules.de.md").write_text("Beurteile es.", "utf-8")
    client = app_with(guidelines=tmp_path / "rules.md")
    facts = client.get("/api/v1/settings").json()
    english, german = facts["guideline_version"], facts["guideline_versions"]["de"]
    assert (english == german, list(facts["guideline_versions"])) == (False, ["de"])
    sign_in(client)
    for number, language in enumerate(("de", "en", "fr", None)):
        body = submission(claim(client)["task"], language=language)
        assert client.post("/api/v1/submissions", json=body).status_code == 201
        if number == 0:
            client.post("/api/v1/undo", json={})
    store = client.app.state.labeling.store
    with store.database.read() as connection:
        versions = connection.exec_driver_sql(
            "select guideline_version from labels where revision = 1 order by sequence"
        )
        assert [row[0] for row in versions] == [german, english, english]

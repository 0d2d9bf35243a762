"""Expanders: candidates by rules from the words of a run."""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from data.errors import PictuneError
from data.sessions import CATEGORIES, Candidate, Session, Turn
from pipelines.session.expanders import EACH, Rules, Vocabulary, words_of
from pipelines.session.language_model import LanguageModel

PROMPTS = (
    "A red dog.", "A blue dog.", "A red cat.", "A fox.", "A cat.", "A dog on the moon.",
    "A cat in the snow.", "A cat and a dog.", "A fox and a dog.", "A dog.",
)  # fmt: skip
NEW = Session("s", "r", "human", None, "A red dog.", datetime(2026, 1, 1, tzinfo=UTC))


def proposed(prompt: str, session: Session = NEW, seed: int = 0) -> dict[str, list[str]]:
    found = Rules(PROMPTS)(session, prompt, random.Random(seed))
    return {name: [one.prompt for one in found if one.category == name] for name in CATEGORIES}


def test_words_in_one_place_of_prompts_of_one_form_can_be_exchanged() -> None:
    known = Vocabulary.of(PROMPTS)
    assert known.others("red") == ["blue"]
    assert known.others("dog") == ["cat", "fox"]
    assert known.others("moon") == []
    assert known.subject(words_of("A red dog.")) == 2


def test_rules_take_words_of_the_run() -> None:
    found = proposed("A red dog.")
    assert set(found["subject"][:2]) == {"A red cat.", "A red fox."}
    assert proposed("Look: a fox.")["rephrase"][:2] == ["A fox.", "An image of a fox."]
    assert found["style"][0] == "A blue dog."
    assert {"A red dog on the moon.", "A red dog in the snow."} < set(found["detail"])
    assert proposed("A cat and a dog.")["rephrase"][0] == "A dog and a cat."
    assert Rules([*PROMPTS, "..."])(NEW, "A red dog.", random.Random(0))  # a prompt without words


@pytest.mark.parametrize(
    "prompt", ["A red dog.", "A fox.", "a knight in fog", "red", "What? A cat!"]
)
@pytest.mark.parametrize("known", [PROMPTS, ()])
def test_candidates_differ_from_the_prompt_and_from_each_other(
    prompt: str, known: tuple[str, ...]
) -> None:
    for seed in range(20):
        found = Rules(known)(NEW, prompt, random.Random(seed))
        words = [words_of(one.prompt) for one in found]
        assert len({*words, words_of(prompt)}) == len(found) + 1
        counts = [sum(one.category == name for one in found) for name in CATEGORIES]
        assert max(counts) <= EACH
        assert min(counts[:3]) > 0
        assert sum(count > 0 for count in counts) >= 4


def test_what_was_shown_before_is_not_proposed_again() -> None:
    shown = Candidate("A blue dog.", "style", 0, 1.0, 0.0, ("i",))
    turn = Turn(1, 0, "A red dog.", "random", (shown,), NEW.started_at)
    later = Session(**{**vars(NEW), "turns": (turn,)})
    found = proposed("A red cat.", later)
    assert "A blue dog." in {one for some in proposed("A red cat.").values() for one in some} | {
        one
        for seed in range(50)
        for some in proposed("A red cat.", seed=seed).values()
        for one in some
    }
    for seed in range(50):
        found = proposed("A red cat.", later, seed)
        assert not {"A blue dog.", "A red dog."} & {one for some in found.values() for one in some}


def test_the_same_draws_lead_to_the_same_candidates() -> None:
    assert proposed("A red dog.", seed=4) == proposed("A red dog.", seed=4)


class Server(BaseHTTPRequestHandler):
    """A server as OpenAI's, which says `text`."""

    text = ""
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body["model"] + ": " + body["messages"][0]["content"])
        answer = json.dumps({"choices": [{"message": {"content": self.text}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def saying(text: str) -> Iterator[str]:
    Server.text = text
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1#small"
        server.shutdown()


def asked_of(name: str) -> list[Candidate]:
    model = LanguageModel(name, Rules(PROMPTS))
    return model(NEW, "A red dog.", random.Random(0))


def test_a_language_model_proposes_first_and_the_rules_fill_in() -> None:
    text = 'Sure: {"style": ["A red dog in oil.", "A red dog.", 7], "subject": ["x\\u0000"]}'
    with saying(text) as name:
        found = asked_of(name)
    assert "small: A person asks a text-to-image model for: A red dog." in Server.asked[-1]
    styles = [one.prompt for one in found if one.category == "style"]
    assert styles[0] == "A red dog in oil."
    assert len(styles) == EACH
    assert [one for one in found if one.category != "style"] == [
        one
        for one in Rules(PROMPTS)(NEW, "A red dog.", random.Random(0))
        if one.category != "style"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nobody", "ConnectError"), ("odd", "no prompts of"), ("text", "substring not found")],
)
def test_without_an_answer_of_the_model_one_line_is_told_and_the_rules_propose(
    caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    with saying('{"style": "x"}' if name == "odd" else "I cannot") as server:
        address = "http://127.0.0.1:9/v1#m" if name == "nobody" else server
        found = asked_of(address)
    assert found == Rules(PROMPTS)(NEW, "A red dog.", random.Random(0))
    (line,) = caplog.messages
    assert reason in line
    assert line.endswith("the rules alone propose for this turn")


def own_words(prompt: str, critique: Sequence[str], number: int) -> dict[str, list[str]]:
    return {"surprise": [f"{prompt} {len(critique)} {number}"]}


def test_a_function_of_ones_own_proposes_and_a_wrong_name_says_what_to_give() -> None:
    found = asked_of(f"{__name__}:own_words")
    assert "A red dog. 0 5" in [one.prompt for one in found if one.category == "surprise"]
    for wrong in ("nothing:there", "os:path", "http://127.0.0.1/v1"):
        with pytest.raises(PictuneError, match="give module:function, or http://ADDRESS#MODEL"):
            asked_of(wrong)

"""Candidates by a language model: an OpenAI-like server, or a function of one's own.

It is asked for prompts of each category, and the rules fill in. Where it does not answer, or has
another answer, one line says so and the rules alone propose.
"""

import json
import logging
import os
import pkgutil
import random
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from data.errors import PictuneError
from data.ids import control_character
from data.sessions import CATEGORIES, Candidate, Session
from pipelines.run.image_plan import LONGEST_PROMPT
from pipelines.session.expanders import EACH, Rules, shown_before, words_of

LOGGER = logging.getLogger(__name__)

TIMEOUT_S = 30.0
KEY_NAME = "OPENAI_API_KEY"
"""Environment variable of the key that a server is asked with, if it is set."""
QUESTION = """A person asks a text-to-image model for: {prompt}
What the person said of the images before: {critique}
Propose {number} other prompts of each kind: rephrase (the same in other words), detail (one detail
more), style (another style), subject (another subject), surprise (what nobody expects).
Answer with JSON alone, as {{"rephrase": ["...", "..."], "detail": [...], ...}}.
"""


class LanguageModel:
    """Proposes by a language model and by rules; a `pipelines.session.turns.Propose`."""

    def __init__(self, name: str, rules: Rules) -> None:
        """Ask the server `http://ADDRESS#MODEL`, or the function `module:function`.

        Raises:
            PictuneError: the name is neither, or the function cannot be imported.
        """
        self._name, self._rules = name, rules
        self._ask: Callable[[str, Sequence[str], int], Any] = self._of_server
        is_address = name.startswith(("http://", "https://"))
        advice = "give module:function, or http://ADDRESS#MODEL"
        if is_address and not name.partition("#")[2]:
            raise PictuneError(f"session.language_model: {name} names no model; {advice}")
        if not is_address:
            try:
                self._ask = pkgutil.resolve_name(name)
            except Exception as error:
                raise PictuneError(
                    f"session.language_model: {name} cannot be imported ({error}); {advice}"
                ) from error
            if not callable(self._ask):
                raise PictuneError(f"session.language_model: {name} is no function; {advice}")

    def __call__(self, session: Session, prompt: str, rng: random.Random) -> list[Candidate]:
        """Return up to `EACH` candidates a category, those of the language model first."""
        by_rules = self._rules(session, prompt, rng)
        said = session.turns[-1].answer if session.turns else None
        critique = [] if said is None else [*said.critique, *filter(None, [said.comment])]
        try:
            own = _candidates(self._ask(prompt, critique, EACH))
        except Exception as error:  # noqa: BLE001 - whatever it does, the session goes on
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            LOGGER.warning("%s: %s; the rules alone propose for this turn", self._name, reason)
            return by_rules
        left, seen = dict.fromkeys(CATEGORIES, EACH), shown_before(session, prompt)
        found = []
        for one in [*own, *by_rules]:
            if words_of(one.prompt) not in seen and left[one.category]:
                seen.add(words_of(one.prompt))
                left[one.category] -= 1
                found.append(one)
        return found

    def _of_server(self, prompt: str, critique: Sequence[str], number: int) -> Any:
        url, _, model = self._name.partition("#")
        said = "; ".join(critique) or "nothing"
        question = QUESTION.format(prompt=prompt, critique=said, number=number)
        key = os.environ.get(KEY_NAME)
        answer = httpx.post(
            f"{url.rstrip('/')}/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": question}]},
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT_S,
        ).raise_for_status()
        text = answer.json()["choices"][0]["message"]["content"]
        return json.loads(text[text.index("{") : text.rindex("}") + 1])


def _candidates(answer: Any) -> list[Candidate]:
    """Return the usable prompts of an answer: a list of texts for each category."""
    lists = {key: value for key, value in answer.items() if isinstance(value, list)}
    found = [
        Candidate(" ".join(text.split()), category)
        for category in CATEGORIES
        for text in lists.get(category, [])
        if isinstance(text, str) and text.strip() and len(text) <= LONGEST_PROMPT
        if control_character(text) is None
    ]
    if not found:
        raise ValueError(f"no prompts of {', '.join(CATEGORIES)} in its answer")
    return found

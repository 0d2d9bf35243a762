"""The words of the raters' page: built-in JSON files by language, and files from the settings.

A file names each word by its place, such as `bar.undo`. A word that depends on a number has a form
for each plural category of the language (Unicode CLDR), and always `other`. Words that a language
lacks are shown in English.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from data.errors import PictuneError

FOLDER = Path(__file__).parent / "words"
"""Folder of the built-in files."""

ENGLISH = "en"
NAME = "language"
"""Key of the language's own name."""

LANGUAGE = r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*"
"""Pattern of a language tag (BCP 47), such as `de` or `pt-BR`."""

PLURALS = ("zero", "one", "two", "few", "many", "other")
"""Plural categories of Unicode CLDR; each language uses some of these categories."""

MORE = ", ".join(PLURALS[:-1])

Word = str | dict[str, str]
"""Text, or text by plural category; `{name}` is a placeholder."""

Words = dict[str, Word]


def read_words(folder: Path | None = None) -> dict[str, Words]:
    """Read the words by language; words in `folder` replace built-in words.

    Every language gets all words.

    Raises:
        PictuneError: the folder has no JSON files, or a file cannot be understood or has a word
            that the page does not use.
    """
    ours = {path.stem: _parsed(path) for path in sorted(FOLDER.glob("*.json"))}
    theirs = {} if folder is None else _of_lead(folder, ours)
    english = ours[ENGLISH] | theirs.get(ENGLISH, {})
    return {
        language: english | ours.get(language, {}) | theirs.get(language, {})
        for language in sorted({*ours, *theirs})
    }


def check_language(language: str | None, words: Collection[str]) -> None:
    """Check that there are words in a language.

    Raises:
        PictuneError: the language has no words.
    """
    if language is not None and language not in words:
        raise PictuneError(
            f"label.language: no words in {language}; choose {' or '.join(words)}, "
            f"or put {language}.json into the folder label.words"
        )


def _of_lead(folder: Path, ours: dict[str, Words]) -> dict[str, Words]:
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise PictuneError(
            f"{folder}: has no file of words; name a folder with files such as fr.json"
        )
    theirs: dict[str, Words] = {}
    for path in paths:
        if re.fullmatch(LANGUAGE, path.stem) is None:
            raise PictuneError(f"{path}: is not named after a language; rename it, as to fr.json")
        words = theirs[path.stem] = _parsed(path)
        for trouble in _troubles(words, ours[ENGLISH]):
            raise PictuneError(f"{path}: {trouble}")
        if path.stem not in ours and NAME not in words:
            raise PictuneError(f'{path}: has no "{NAME}"; give there the name that raters choose')
    return theirs


def _parsed(path: Path) -> Words:
    try:
        words: Words = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PictuneError(
            f"{path}: not readable as JSON in UTF-8 ({error}); write it as our own words/en.json"
        ) from error
    if not isinstance(words, dict):
        raise PictuneError(f'{path}: not an object; write {{"bar.undo": "...", ...}}')
    return words


def _troubles(words: Words, english: Words) -> Iterator[str]:
    """Yield the faults of a file of words."""
    for key, word in words.items():
        if key not in english:
            near = difflib.get_close_matches(key, english, 1)
            hint = f"did you mean {near[0]}?" if near else "our own words/en.json has all"
            yield f"{key} is no word of the page; {hint}"
            continue
        forms = word if isinstance(word, dict) else {"other": word}
        if not all(isinstance(form, str) and form for form in forms.values()):
            yield f"{key} is not a text; put it in quotes, and do not leave it empty"
        elif "other" not in forms or not set(forms) <= set(PLURALS):
            yield f"{key} has the forms {', '.join(forms)}; give other, and any of {MORE}"
        elif unknown := placeholders(word) - placeholders(english[key]):
            yield (
                f"{key} has {{{min(unknown)}}}, which the page does not know there; "
                f"it knows {', '.join(sorted(placeholders(english[key]))) or 'none'}"
            )


def placeholders(word: Word) -> set[str]:
    """Return the names in braces, in all forms together."""
    forms = word.values() if isinstance(word, dict) else [word]
    return {name for form in forms for name in re.findall(r"\{(\w+)\}", form)}

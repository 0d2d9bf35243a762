"""The words of the raters' page: JSON files by language.

A file names each word by its place, such as `bar.undo`. A word that depends on a number has a form
for each plural category of the language (Unicode CLDR), and always `other`. Words that a language
lacks are shown in English.
"""

from collections.abc import Collection
from pathlib import Path

from data.errors import PictuneError
from data.files import read_json

FOLDER = Path(__file__).parent / "words"
"""Folder of the files."""

ENGLISH = "en"

Word = str | dict[str, str]
"""Text, or text by plural category; `{name}` is a placeholder."""

Words = dict[str, Word]


def read_words() -> dict[str, Words]:
    """Read the words by language; every language gets all words.

    Raises:
        PictuneError: a file is not JSON.
    """
    advice = "write it as our own words/en.json"
    files = {path.stem: read_json(path, advice) for path in sorted(FOLDER.glob("*.json"))}
    for language, words in files.items():
        if not isinstance(words, dict):
            raise PictuneError(f"{FOLDER / language}.json: is no JSON object; {advice}")
    return {language: files[ENGLISH] | words for language, words in files.items()}


def check_language(language: str | None, words: Collection[str]) -> None:
    """Check that there are words in a language.

    Raises:
        PictuneError: the language has no words.
    """
    if language is not None and language not in words:
        raise PictuneError(f"label.language: no words in {language}; choose {' or '.join(words)}")

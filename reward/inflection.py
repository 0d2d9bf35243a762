"""English numbers, singulars and plurals, as far as prompts need them."""

NUMBERS = {"a": 1, "an": 1, "one": 1} | {
    word: number
    for number, word in enumerate(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=2
    )
}
NUMBERS |= {str(number): number for number in range(1, 11)}

_IRREGULAR = {
    "child": "children",
    "deer": "deer",
    "fish": "fish",
    "foot": "feet",
    "goose": "geese",
    "man": "men",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "sheep": "sheep",
    "tooth": "teeth",
    "woman": "women",
    "bus": "buses",
} | {
    stem + ending: stem + "ves"
    for stem, ending in (
        ("wol", "f"),
        ("cal", "f"),
        ("hal", "f"),
        ("lea", "f"),
        ("kni", "fe"),
        ("shel", "f"),
    )
}
_SINGULARS = {many: one for one, many in _IRREGULAR.items()}
_HISSING = ("s", "x", "z", "ch", "sh")


def plural(word: str) -> str:
    """The plural of a lower-case singular noun."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("y") and word[-2:-1] not in {"a", "e", "i", "o", "u", ""}:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(_HISSING) else "s")


def singular(word: str) -> str:
    """The singular of a lower-case noun; a word that is no plural comes back as it is."""
    if word in _SINGULARS:
        return _SINGULARS[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if (
        word.endswith("es")
        and word[:-2].endswith(_HISSING)
        and len(word) > 4
        and (word.endswith("sses") or word[-3] not in "sz")
    ):
        return word[:-2]
    return (
        word[:-1]
        if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2
        else word
    )

"""Places where an image of the embedded world does not fit its prompt, as marks."""

from data.regions import ARTIFACT, MISALIGNED, Mark, words_of
from world.prompts import COUNTS, SINGULAR, Requirement
from world.scenes import FACE_SIZES, PLACES, SIZE, TINTS, Reading, SeenFace


def faults(prompt: str, reading: Reading) -> list[Mark]:
    """Return a mark for each part of the image that is wrong.

    It is a box around each animal too many, of another color, or that nobody asked for. What is
    missing has no place, and neither has a wrong background: then the box is the whole image, as in
    an image that cannot be read. Where animals cannot be read, they alone are marked, as artifacts.
    """
    if not reading.readable:
        return [
            _box(ARTIFACT, reading, face) for face in reading.faces if face.species is None
        ] or [_box(ARTIFACT, reading)]
    wanted, words, marks = Requirement.parse(prompt), _words_of_parts(prompt), []
    wrong = {part for part, met in wanted.parts(reading).items() if not met}
    for animal, number in wanted.counts.items():
        faces = [face for face in reading.faces if face.species == animal]
        if (part := f"count of {animal}") in wrong:
            extra = faces[number:] if number is not None else []
            marks += [_box(MISALIGNED, reading, face, words[part]) for face in (*extra,) or (None,)]
        if faces and (part := f"color of {animal}") in wrong:
            other = [face for face in faces if face.tint != wanted.tints[animal]]
            marks += [_box(MISALIGNED, reading, face, words[part]) for face in other]
    others = [face for face in reading.faces if face.species not in wanted.counts]
    if "nothing else" in wrong:
        marks += [_box(MISALIGNED, reading, face) for face in others]
    if "place" in wrong:
        marks.append(_box(MISALIGNED, reading, None, words["place"]))
    return marks


def _box(
    aspect: str, reading: Reading, face: SeenFace | None = None, words: tuple[int, ...] = ()
) -> Mark:
    """Return a box around a face, or around the whole image."""
    if face is None:
        return Mark(kind="box", aspect=aspect, x0=0, y0=0, x1=1, y1=1, word_indexes=words)
    half = sum(FACE_SIZES[min(len(reading.faces), max(FACE_SIZES))]) / 4 / SIZE
    return Mark(
        kind="box",
        aspect=aspect,
        x0=max(face.x - half, 0),
        y0=max(face.y - half, 0),
        x1=min(face.x + half, 1),
        y1=min(face.y + half, 1),
        word_indexes=words,
    )


def _words_of_parts(prompt: str) -> dict[str, tuple[int, ...]]:
    """Return the places of the words that ask for each part of `Requirement.parts`."""
    parts: dict[str, tuple[int, ...]] = {}
    number: tuple[int, ...] = ()
    tint: tuple[int, ...] = ()
    for index, word in enumerate(words_of(prompt.lower())):
        number = (index,) if word in COUNTS else number
        tint = (index,) if word in TINTS else tint
        if word in SINGULAR:
            animal = SINGULAR[word]
            parts |= {f"count of {animal}": (*number, index), f"color of {animal}": (*tint, index)}
            number = tint = ()
        elif word in PLACES[1:]:
            parts["place"] = (index,)
    return parts

"""Identifiers and texts: their allowed form, and ids that contain the time."""

import hashlib
import unicodedata
import uuid
from datetime import datetime
from typing import Annotated

from pydantic import Field

WITHOUT_NUL = r"^[^\x00]*$"
"""Pattern of texts without U+0000, which PostgreSQL cannot store."""

Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
Remark = Annotated[str, Field(max_length=4000, pattern=WITHOUT_NUL)]


def control_character(text: str) -> str | None:
    """Return the name, such as U+0000, of the text's first control character or half a character.

    Tabs and line ends are allowed. Databases and files refuse some of the other control characters.
    """
    for one in text:
        if unicodedata.category(one) in ("Cc", "Cs") and one not in "\t\n\r":
            return f"U+{ord(one):04X}"
    return None


def uuid7(moment: datetime, name: str) -> str:
    """Return a UUID version 7 (RFC 9562) of the moment.

    A hash of `name` replaces the random bits, so that the same history leads to the same ids.
    """
    milliseconds = int(moment.timestamp() * 1000) & (2**48 - 1)
    bits = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10], "big")
    version, variant = 0x7 << 76, 0b10 << 62
    high, low = (bits >> 62 & 0xFFF) << 64, bits & (2**62 - 1)
    return str(uuid.UUID(int=(milliseconds << 80) | version | high | variant | low))

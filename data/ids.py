"""Identifiers that tell when something came to be."""

import hashlib
import uuid
from datetime import datetime


def uuid7(moment: datetime, name: str) -> str:
    """A UUID version 7 (RFC 9562) of the moment; its random bits are a hash of `name`, so that the same history gives the same ids."""
    milliseconds = int(moment.timestamp() * 1000) & (2**48 - 1)
    bits = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10], "big")
    value = (
        (milliseconds << 80)
        | (0x7 << 76)
        | ((bits >> 62 & 0xFFF) << 64)
        | (0b10 << 62)
        | (bits & (2**62 - 1))
    )
    return str(uuid.UUID(int=value))

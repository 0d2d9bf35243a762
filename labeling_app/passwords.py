"""Passwords, kept as argon2id hashes (RFC 9106)."""

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from data.errors import PictuneError

SHORTEST = 8
"""Fewest characters of a password."""

LONGEST = 1000
"""Most characters of a password; more would only cost time."""

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters of random passwords; no two sound or look alike."""

_HASHER = PasswordHasher()
_NOBODYS = _HASHER.hash("the password of nobody")


def hash_password(password: str) -> str:
    """Return the hash to be stored.

    Raises:
        PictuneError: the password is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise PictuneError(
            f"password: has {len(password)} characters; choose one of {SHORTEST} to {LONGEST}"
        )
    return _HASHER.hash(password)


def draw_password() -> str:
    """Return a new password of 59 random bits, as `k7mq-2tzp-w9hd`."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))


def is_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches the hash.

    Without a hash the check takes as long, so that its time does not reveal who has a password.
    """
    try:
        return _HASHER.verify(password_hash or _NOBODYS, password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False

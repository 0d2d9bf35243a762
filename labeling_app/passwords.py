"""Passwords, kept as argon2id hashes (RFC 9106)."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from data.errors import PictuneError

SHORTEST = 8
"""Characters of a password."""

LONGEST = 1000
"""Characters; more would only cost time."""

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


def is_password(password: str, password_hash: str | None) -> bool:
    """Whether the hash is this password's.

    Without a hash it takes as long, so that the time does not tell who has one.
    """
    try:
        return _HASHER.verify(password_hash or _NOBODYS, password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False

"""Passwords as Argon2id hashes (RFC 9106), with the parameters that OWASP names for little memory."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from edge.errors import UsageError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MEMORY_KIB, TURNS, LANES = 19_456, 2, 1
MIN_CHARS, MAX_CHARS = 10, 256


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=TURNS, memory_cost=MEMORY_KIB, parallelism=LANES)


@cache
def _nobody() -> str:
    """The hash of a password that nobody has: comparing with it takes as long as with any other."""
    return _hasher().hash("nobody")


def hash_of(password: str) -> str:
    """What is kept of a password. Raises: UsageError: it is too short or too long."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise UsageError(f"expected a password of {MIN_CHARS} to {MAX_CHARS} characters, found {len(password)}")
    return _hasher().hash(password)


def is_right(password_hash: str, password: str) -> bool:
    """Whether this is the password; takes the same time where there is no hash, as for a name that nobody has."""
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(password_hash or _nobody(), password[:MAX_CHARS]) and bool(password_hash)
    except (VerificationError, InvalidHashError):
        return False


def warm_up() -> None:
    """Make what the first comparison would take longer for."""
    _nobody()

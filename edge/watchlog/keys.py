"""The device's key: Ed25519, made once, readable by the daemon's user alone."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge.errors import DataError
from edge.files import read_regular, write_atomic

KEY_NAME = "device-key.pem"
MAX_KEY_BYTES = 4096


class DeviceKey:
    """Signs. ``public`` is the other half: 32 bytes in base64."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = _text(
            private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )

    @classmethod
    def of_folder(cls, folder: Path) -> DeviceKey:
        """The key that lies in a folder.

        Raises:
            DataError: it is damaged, or others may read it.
            OSError: there is none, or it cannot be read.
        """
        path = folder / KEY_NAME
        if path.stat().st_mode & 0o077:
            raise DataError(f"{path}: others may read the device's key; run: chmod 600 {path}")
        try:
            key = serialization.load_pem_private_key(read_regular(path, MAX_KEY_BYTES), None)
        except (ValueError, TypeError):
            raise DataError(f"{path}: is no key; move it away, and the next start makes another one") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise DataError(f"{path}: expected an Ed25519 key")
        return cls(key)

    @classmethod
    def made_in(cls, folder: Path) -> DeviceKey:
        """The key that lies in a folder, made where there is none. Raises as ``of_folder``."""
        if not (folder / KEY_NAME).exists():
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            made = folder / f".{KEY_NAME}-{secrets.token_hex(8)}"
            write_atomic(made, Ed25519PrivateKey.generate().private_bytes(*form), mode=0o600)
            # of several processes that begin at once, the first one makes the key of all
            with suppress(FileExistsError):
                os.link(made, folder / KEY_NAME)
            made.unlink()
        return cls.of_folder(folder)

    def sign(self, message: bytes) -> str:
        """The signature in base64."""
        return _text(self._private.sign(message))


def is_signed(message: bytes, signature: str, public: str) -> bool:
    """Whether the owner of this public key has signed the message; what is no key or signature has not."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def fingerprint(public: str) -> str:
    """Short enough to compare by eye: ``3f8a 91c2 …``, half of the SHA-256 of the public key."""
    digest = hashlib.sha256(public.encode()).hexdigest()[:32]
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()

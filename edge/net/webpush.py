"""Web Push: a message encrypted for one browser (RFC 8291), in one record (RFC 8188), with who sends it (RFC 8292)."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge.net.signed import text_of

# what a push service must take at least is 4096 bytes of body (RFC 8030, 7.2)
RECORD_BYTES = 4096
AUTH_BYTES = 16
# of an uncompressed point of P-256
KEY_BYTES = 65
# push services refuse more than 24 h (RFC 8292, 2)
VALID_S = 12 * 3600


def encrypted(plain: bytes, key: bytes, auth: bytes) -> bytes:
    """The body of a push request, ``Content-Encoding: aes128gcm``.

    Args:
        plain: at most 3993 bytes.
        key: public key of the browser, 65 bytes.
        auth: its secret, 16 bytes.

    Raises:
        ValueError: the key is no point of P-256.
    """
    return _encrypted(plain, key, auth, ec.generate_private_key(ec.SECP256R1()), os.urandom(16))


def _encrypted(plain: bytes, key: bytes, auth: bytes, own: ec.EllipticCurvePrivateKey, salt: bytes) -> bytes:
    shared = own.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key))
    own_key = public_of(own)
    secret = _derived(auth, shared, b"WebPush: info\0" + key + own_key, 32)
    content_key = _derived(salt, secret, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(salt, secret, b"Content-Encoding: nonce\0", 12)
    head = salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(own_key)]) + own_key
    # the byte 2 ends the last record
    return head + AESGCM(content_key).encrypt(nonce, plain + b"\2", None)


def authorization(private: ec.EllipticCurvePrivateKey, endpoint: str, contact: str, now_s: float) -> str:
    """The header that says who sends.

    Args:
        private: key of this sender, whose public half the browser was subscribed with.
        endpoint: address that is posted to.
        contact: ``mailto:`` or ``https:`` address of who runs this sender.
        now_s: since 1970.
    """
    parts = urlsplit(endpoint)
    claims = {"aud": f"{parts.scheme}://{parts.netloc}", "exp": int(now_s) + VALID_S, "sub": contact}
    signed = ".".join(text_of(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256"}, claims))
    r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    signature = text_of(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return f"vapid t={signed}.{signature},k={text_of(public_of(private))}"


def public_of(private: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half: 65 bytes."""
    form = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return private.public_key().public_bytes(*form)


def is_key(data: bytes) -> bool:
    """Whether these bytes are a public key that can be encrypted for."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)
    except ValueError:
        return False
    return len(data) == KEY_BYTES


def _derived(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)

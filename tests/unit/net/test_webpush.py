"""Web Push by the book: the example of RFC 8291, and readers that others wrote."""

from __future__ import annotations

import base64
import json
import time

import http_ece
import py_vapid
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from edge.net import webpush
from edge.net.signed import data_of, text_of
from edge.net.webpush import authorization, encrypted, is_key, public_of

CURVE = ec.SECP256R1()
# RFC 8291, 5 and appendix A
PLAIN = b"When I grow up, I want to be a watermelon"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
RECEIVER = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_"
    "yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_the_standard() -> None:
    own = ec.derive_private_key(int.from_bytes(data_of(SENDER), "big"), CURVE)
    made = webpush._encrypted(PLAIN, data_of(RECEIVER), data_of(AUTH), own, data_of(SALT))
    assert text_of(made) == BODY


@given(st.binary(max_size=3993))
def test_another_reader_reads_what_was_encrypted(plain: bytes) -> None:
    browser = ec.generate_private_key(CURVE)
    body = encrypted(plain, public_of(browser), b"0123456789abcdef")
    assert len(body) <= 4096
    assert http_ece.decrypt(body, private_key=browser, auth_secret=b"0123456789abcdef") == plain


def test_who_sends_is_signed_for_the_service_alone() -> None:
    own = ec.generate_private_key(CURVE)
    header = authorization(own, "https://push.example.net:8443/abc?d=e", "mailto:me@example.org", time.time())
    assert py_vapid.Vapid02.verify(header)
    token, _, key = header.removeprefix("vapid t=").partition(",k=")
    assert data_of(key) == public_of(own)
    claims = json.loads(data_of(token.split(".")[1]))
    assert claims["aud"] == "https://push.example.net:8443"
    assert claims["sub"] == "mailto:me@example.org"
    assert 0 < claims["exp"] - time.time() < 24 * 3600


@pytest.mark.parametrize("text", [RECEIVER[:-4], "B" * 87, "A" + RECEIVER[1:], ""])
def test_what_is_no_point_of_the_curve_is_no_key(text: str) -> None:
    assert is_key(data_of(RECEIVER))
    assert not is_key(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

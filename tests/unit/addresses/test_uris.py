from __future__ import annotations

import html
import json
import re
import time
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edge.addresses.secrets import Redactor, secrets_in
from edge.addresses.uris import (
    NETWORK_SCHEMES,
    host_of,
    is_live,
    kind_of,
    masked,
    masked_in,
    secret_values,
    short_name,
    without_keys,
)

SECRET = "hunter2canary"


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://admin:hunter2canary@10.0.0.5:554/stream",
        "rtsp://hunter2canary@cam/stream",
        "http://cam/video?user=admin&password=hunter2canary&x=1",
        "http://cam/cgi?action=get&usr=hunter2canary&pwd=hunter2canary",
        "srt://host:9000?passphrase=hunter2canary&streamid=hunter2canary",
        "rtmp://host/app?token=hunter2canary",
        "https://host/a.m3u8?access_token=hunter2canary#t=1",
        "rtsp://a:hunter2canary@with@at@cam/1",
        "gst:rtspsrc location=rtsp://u:hunter2canary@cam/1 ! appsink",
        "rtsp://u:1/hunter2canary@host",
        "rtsp://u:12345?hunter2canary@host:554/live",
        "rtsp://max.m:1#hunter2canary@10.0.0.5/live",
        "error: rtsp://u:0/hunter2canary@x@host/live: refused",
        "gst:rtspsrc location=rtsp://u:554/hunter2canary@cam/1 ! appsink",
    ],
)
def test_secrets_are_masked_in_every_slot(uri: str) -> None:
    assert SECRET not in masked(uri)


@given(st.text(st.characters(codec="ascii", exclude_characters="/?#@: \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"), min_size=12))
def test_no_password_survives_masking_or_naming(password: str) -> None:
    uri = f"rtsp://user:{quote(password, safe='')}@camera.example/live"
    assert quote(password, safe="") not in masked(uri)
    assert quote(password, safe="") not in short_name(uri)


# a password of four letters and more in which some character stands, and a host and path that hold none of it
CORE = "hunter2canary"
ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
PASSWORDS = st.tuples(ODD, ODD).map(lambda ends: f"{ends[0]}{CORE}{ends[1]}")
SLOTS = [
    "{scheme}://admin:{password}@cam.example/live",
    "{scheme}://ad min@site:{password}@cam.example:554/live?x=1",
    "{scheme}://:{password}@[fe80::1]:554/live",
    "{scheme}://{password}@cam.example/live",
    "{scheme}://cam.example/live?password={password}",
    "{scheme}://cam.example/live?user=x&pwd={password}&channel=1",
    "{scheme}://cam.example/user=x_password={password}_channel=1.sdp",
    "rtmp:{scheme}://admin:{password}@cam.example/live",
]


def every_form(uri: str) -> list[str]:
    """Texts in which an address is printed."""
    texts = [uri, repr(uri), json.dumps(uri), json.dumps(uri, ensure_ascii=False), html.escape(uri), repr(uri.encode())]
    texts += [f"cannot open {text}: 401, see \"the 'manual'\"" for text in texts]
    return [*texts, repr(f"\"the 'manual'\" of {uri}"), quote(uri, safe="")]


@given(PASSWORDS, st.sampled_from(SLOTS), st.sampled_from(NETWORK_SCHEMES))
@example("two words hunter2canary", SLOTS[0], "http")
@example("12 hunter2canary", SLOTS[0], "rtsp")
@example("a\"b hunter2canary'<c>", SLOTS[4], "rtsp")
@example("1/hunter2canary x", SLOTS[0], "rtsp")
@example("a&hunter2canary", SLOTS[4], "rtsp")
@example("a#hunter2canary", SLOTS[5], "rtsp")
@example("hunter2canary\ue000", SLOTS[0], "rtsp")
def test_a_password_of_any_characters_is_masked_in_every_slot(password: str, slot: str, scheme: str) -> None:
    # what ends a slot by its own rules is no part of the password there
    if "password=" in slot or "pwd=" in slot:
        after = slot.partition("{password}")[2].partition("&")[0]
        assume(not re.search(r"&[^&]*=", password + after))
    elif "@" not in slot.partition("{password}")[0] and ":{password}" not in slot:
        assume(not re.search(r"[/?#]", password))
    uri = slot.format(scheme=scheme, password=password)
    assert CORE not in masked(uri)
    redactor = Redactor()
    for value in secrets_in(uri):
        redactor.register(value)
    for text in every_form(uri):
        assert CORE not in redactor(text), text


@pytest.mark.parametrize("password", ["two words", "a\tb", 'a"b', "x<y", "1 2"])
def test_a_password_of_any_characters_leaves_the_host_readable(password: str) -> None:
    assert masked(f"rtsp://admin:{password}@cam:554/live") == "rtsp://***@cam:554/live"
    assert host_of(f"rtsp://admin:{password}@cam:554/live") == "cam"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtmp://a.rtmp.example.com/live2/abcd-1234-efgh", "rtmp://a.rtmp.example.com/live2/***"),
        (
            "https://hooks.example.com/services/T01/B02/0123456789abcdef",
            "https://hooks.example.com/services/T01/B02/***",
        ),
        ("https://api.example.org/bot123:canary-canary/send?x=1", "https://api.example.org/***/send?x=1"),
        ("rtmp:rtmp://u:hunter2canary@cam/app", "rtmp:rtmp://***@cam/app"),
        ("jsonl:/var/lib/a-long-folder-name/door.jsonl", "jsonl:/var/lib/a-long-folder-name/door.jsonl"),
    ],
)
def test_keys_in_the_path_of_a_receiver_are_masked(uri: str, shown: str) -> None:
    assert without_keys(uri) == shown


def test_what_is_no_secret_stays_readable() -> None:
    assert masked("rtsp://cam:554/stream?channel=2") == "rtsp://cam:554/stream?channel=2"
    assert masked("rtsp://10.0.0.5:554/live@2") == "rtsp://10.0.0.5:554/live@2"
    assert masked("http://localhost:80/a@b") == "http://localhost:80/a@b"
    assert masked_in("http://cam:80/a, then me@here") == "http://cam:80/a, then me@here"
    assert masked("https://tv.example/@news/live") == "https://tv.example/@news/live"
    assert masked("videos/door.mp4") == "videos/door.mp4"


@pytest.mark.parametrize(
    ("uri", "kind", "live"),
    [
        ("0", "device", True),
        ("/dev/video2", "device", True),
        ("rtsp://cam/1", "network", True),
        ("HTTP://cam/1", "network", True),
        ("gst:videotestsrc ! appsink", "gstreamer", True),
        ("clip.mp4", "file", False),
        ("synthetic://street?seed=1", "synthetic", False),
        ("synthetic://street?seed=1&live=1", "synthetic", True),
    ],
)
def test_an_address_tells_what_it_names(uri: str, kind: str, live: bool) -> None:
    assert kind_of(uri) == kind
    assert is_live(uri) is live


@pytest.mark.parametrize(
    "piece",
    [
        "pass",
        "&pass",
        "a:",
        "://",
        "/",
        "=pass",
        "=pass=",
        'a="',
        'pass="',
        "pass='",
        "?user=",
        "://a:b",
        "x@",
        "&&",
        "://1:1/",
    ],
)
@pytest.mark.parametrize("begin", ["", "http://h/?", "://", "http://h/?pass="])
def test_no_text_takes_long_to_mask(begin: str, piece: str) -> None:
    text = begin + piece * (15_000 // len(piece))
    begin_s = time.process_time()
    masked(text)
    masked_in(text)
    secret_values(text)
    # the worst of them took 20 s at this length, in which no thread of the daemon could run
    assert time.process_time() - begin_s < 1.5

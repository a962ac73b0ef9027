from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.addresses.uris import is_live, kind_of, masked, short_name, without_keys

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
    assert masked("http://cam:80/a, then me@here") == "http://cam:80/a, then me@here"
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

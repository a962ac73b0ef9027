"""RTSP as text: what is taken for a request, a transport or a token, and that nothing else raises."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.server.rtsp.protocol import (
    BadRequestError,
    Digest,
    Doors,
    Request,
    Transport,
    answer,
    parse_head,
    parse_transport,
    path_of,
    track_of,
)
from edge.server.rtsp.wire import FORM, Message, Reader
from edge.video.encoder import Packet, VideoEncoder, find_encoder
from edge.video.opus import opus_beginning
from edge.video.rtp import MAX_PACKET_BYTES, RtpPacker, SoundPacker

URI = "rtsp://box:8554/door"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"DESCRIBE rtsp://a/b RTSP/2.0", 505),
        (b"describe rtsp://a/b RTSP/1.0", 400),
        (b"DESCRIBE rtsp://a/b RTSP/1.0\r\nno colon", 400),
        (b"DESCRIBE rtsp://a/b RTSP/1.0\r\nContent-Length: -1", 400),
        (b"DESCRIBE rtsp://a/b RTSP/1.0\r\nContent-Length: 99999999999999", 413),
        (b"DESCRIBE rtsp://a/b RTSP/1.0" + b"\r\na: b" * 65, 400),
    ],
)
def test_what_is_no_request_is_refused_with_its_kind(head: bytes, status: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_head(head)
    assert refused.value.status == status


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with suppress(BadRequestError):
        request, length = parse_head(data)
        assert 0 <= length <= 4096
        assert answer(200, request.cseq).isascii()
    text = data.decode("latin-1")
    path_of(text)
    parse_transport(text)
    Digest.of(text)
    Doors(("x" * 22,)).lets_in(Request("PLAY", text, {"authorization": text}), "nonce")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=2-3", Transport(True, 2, 3)),
        ("RTP/AVP/TCP;unicast", Transport(True, 0, 1)),
        ("RTP/AVP;unicast;client_port=5000-5001", Transport(False, 5000, 5001)),
        ("RTP/AVP/UDP;unicast;client_port=5000", Transport(False, 5000, 5001)),
        ("RTP/AVP;multicast, RTP/AVP/TCP;interleaved=0-1", Transport(True, 0, 1)),
        ("RTP/SAVP;unicast;client_port=5000-5001", None),
        ("RTP/AVP;unicast;client_port=80-81", None),
        ("RTP/AVP;unicast;client_port=65535", None),
        ("RTP/AVP/TCP;interleaved=255-256", None),
    ],
)
def test_the_first_transport_that_is_offered_is_taken(text: str, expected: Transport | None) -> None:
    assert parse_transport(text) == expected


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("rtsp://box:8554/door", "door"),
        ("rtsp://box:8554/door/", "door"),
        ("rtsp://box/door/source/trackID=0", "door/source"),
        ("rtsp://user:pass@box/door?x=1", "door"),
        ("rtsp://box/%64oor", "door"),
        ("*", "*"),
        ("rtsp://[::1/door", None),
    ],
)
def test_the_path_of_an_address(uri: str, path: str | None) -> None:
    assert path_of(uri) == path


@pytest.mark.parametrize(
    ("uri", "track"),
    [
        ("rtsp://box/door", 0),
        ("rtsp://box/door/trackID=0", 0),
        ("rtsp://box/door/source/trackID=1/", 1),
        ("rtsp://box/trackID=x", 0),
        ("rtsp://box/trackID=99999", 0),
        ("*", 0),
    ],
)
def test_the_track_of_an_address(uri: str, track: int) -> None:
    assert track_of(uri) == track


def test_a_password_is_shown_by_its_digest_alone() -> None:
    right = Digest("viewer", "0123", URI, _response("secret"))
    assert right.fits("secret", "DESCRIBE")
    assert not right.fits("secret", "PLAY")
    assert not right.fits("other", "DESCRIBE")


def _response(password: str) -> str:
    import hashlib

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    return md5(f"{md5(f'viewer:edgeloop:{password}')}:0123:{md5(f'DESCRIBE:{URI}')}")


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=10), st.integers(1, 40))
def test_messages_come_out_as_they_went_in_however_they_are_cut(sent: list[tuple[bytes, bool]], step: int) -> None:
    messages = [Message.of_facts(FORM, "door", {"codec": "h264", "header": ""})]
    messages += [
        Message.of_packet("door", Packet(data, number, is_key), 5) for number, (data, is_key) in enumerate(sent)
    ]
    data = b"".join(message.pack() for message in messages)
    reader, found = Reader(), []
    for at in range(0, len(data), step):
        found += list(reader.feed(data[at : at + step]))
    assert found == messages


def packets_of(encoder: VideoEncoder, number: int) -> list[Packet]:
    image = np.random.default_rng(number).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    return encoder.encode(image, number * 3600)


def test_packets_are_numbered_on_when_a_source_is_opened_anew() -> None:
    packer, seen = RtpPacker(), []
    for run in range(2):
        encoder = VideoEncoder(find_encoder(), 128, 96, fps=25, key_every_s=1, has_global_header=False)
        packer.begin("h264", b"")
        for number in range(3):
            (packet,) = packets_of(encoder, number)
            # a second passes between the runs
            seen += packer.pack(packet, (run * 2 + 1) * 10**9 + number * 40_000_000)
    heads = [struct.unpack("!BBHII", packet[:12]) for packet in seen]
    numbers = [head[2] for head in heads]
    assert [(number - numbers[0]) & 0xFFFF for number in numbers] == list(range(len(numbers)))
    assert len({head[4] for head in heads}) == 1
    times = list(dict.fromkeys((head[3] - heads[0][3]) & 0xFFFFFFFF for head in heads))
    # 40 ms apart; the second run begins when its first picture was taken
    assert times == [0, 3600, 7200, 180_000, 183_600, 187_200]
    assert max(len(packet) for packet in seen) <= MAX_PACKET_BYTES


def test_nothing_is_packed_before_a_picture_that_can_be_decoded() -> None:
    packer = RtpPacker()
    packer.begin("h264", b"")
    encoder = VideoEncoder(find_encoder(), 128, 96, fps=25, key_every_s=1, has_global_header=False)
    (key,), (later,) = packets_of(encoder, 0), packets_of(encoder, 1)
    assert packer.pack(later, 1) == []
    assert packer.pack(Packet(b"\0\0\0\1\x65garbage", 0, True), 1) == []
    assert packer.pack(key, 1)
    assert packer.pack(later, 1)
    assert any(line.startswith("a=fmtp:96 packetization-mode=1;profile-level-id=") for line in packer.sdp("trackID=0"))


def test_a_report_says_when_the_last_picture_was_taken() -> None:
    packer = RtpPacker()
    packer.begin("h264", b"")
    encoder = VideoEncoder(find_encoder(), 128, 96, fps=25, key_every_s=1, has_global_header=False)
    (packet,) = packets_of(encoder, 0)
    sent = packer.pack(packet, 1_795_000_000 * 10**9 + 500_000_000)
    kind, ssrc, seconds, fraction, stamp, count, _ = struct.unpack("!HxxIIIIII", packer.report())
    assert (kind, ssrc) == (0x80C8, struct.unpack("!I", sent[0][8:12])[0])
    assert (seconds - 2_208_988_800, fraction) == (1_795_000_000, 1 << 31)
    assert (stamp, count) == (struct.unpack("!I", sent[0][4:8])[0], len(sent))


def test_the_time_of_opus_is_48_khz_and_goes_on_with_the_next_run() -> None:
    packer, seen = SoundPacker(), []
    for run in range(2):
        packer.begin("opus", opus_beginning())
        seen += [
            packer.pack(b"x" * 80, 900_000 + number * 1800, run * 10**9 + number * 20_000_000) for number in (0, 1)
        ]
    heads = [struct.unpack("!BBHII", packet[:12]) for (packet,) in seen]
    assert [(head[2] - heads[0][2]) & 0xFFFF for head in heads] == [0, 1, 2, 3]
    # 20 ms apart; the second run begins when it was taken
    assert [(head[3] - heads[0][3]) & 0xFFFFFFFF for head in heads] == [0, 960, 48_000, 48_960]
    assert packer.sdp("trackID=1")[1] == "a=rtpmap:97 opus/48000/2"


def test_aac_that_is_too_long_for_a_packet_comes_in_pieces_that_say_its_length() -> None:
    packer, data = SoundPacker(), bytes(range(256)) * 12
    packer.begin("aac", _aac_beginning())
    packets = packer.pack(data, 0, 1)
    assert max(len(packet) for packet in packets) <= MAX_PACKET_BYTES
    assert b"".join(packet[16:] for packet in packets) == data
    assert {packet[12:16] for packet in packets} == {struct.pack("!HH", 16, len(data) << 3)}
    assert [packet[1] >> 7 for packet in packets] == [0] * (len(packets) - 1) + [1]
    assert packer.sdp("trackID=1")[1] == "a=rtpmap:97 MPEG4-GENERIC/16000/1"
    assert "config=1408" in packer.sdp("trackID=1")[2]


def _aac_beginning() -> bytes:
    import io

    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("aac", rate=16_000)
        stream.codec_context.layout = "mono"
        container.start_encoding()
        return file.getvalue()

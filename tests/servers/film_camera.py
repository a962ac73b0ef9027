"""A camera of two films that start again for ever: film_camera.py MAIN SUB.

It prints its port and serves /main/source and /sub/source. It encodes nothing, so it takes little of a machine on which
its readers are measured.
"""

from __future__ import annotations

import sys
import threading
import time

import av

from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.feeds import Feeds
from edge.server.rtsp.server import Offered, RtspServer
from edge.video.packets import PacketForm, PacketTap, SourcePacket


def play(path: str, fps: float, tap: PacketTap) -> None:
    """Give the packets of an H.264 film to a tap, so many a second."""
    with av.open(path) as film:
        stream = film.streams.video[0]
        header = bytes(stream.codec_context.extradata or b"")
        packets = [(bytes(packet), bool(packet.is_keyframe)) for packet in film.demux(stream) if packet.size]
    tap.begin(PacketForm("h264", 0, 0, header))
    began_s = time.monotonic()
    for number in range(10**9):
        data, is_key = packets[number % len(packets)]
        ticks, now_ns = round(number * 90_000 / fps), time.monotonic_ns()
        tap.take(SourcePacket(data, ticks, ticks, is_key, now_ns, now_ns))
        time.sleep(max(0.0, began_s + (number + 1) / fps - time.monotonic()))


def main() -> None:
    taps = {name: PacketTap() for name in ("main", "sub")}
    offered = {name: Offered(tap) for name, tap in taps.items()}
    server = RtspServer("127.0.0.1", 0, Access(), Feeds(LiveBoard()), lambda: offered, max_clients=8)
    _, port = server.start()
    for film, tap in zip(sys.argv[1:3], taps.values(), strict=True):
        # such a film does not say how fast it is
        path, _, fps = film.rpartition("@")
        threading.Thread(target=play, args=(path, float(fps), tap), daemon=True).start()
    print(port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()

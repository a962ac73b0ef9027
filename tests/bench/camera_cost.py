"""What one unwatched camera costs: processor time per frame of its process and of the pipeline, decoding taken off.

    python tests/bench/camera_cost.py [--size 1920x1080] [--fps 15] [--seconds 20] [--model MODEL.onnx] [--clip CLIP]

A camera (H.264 in a transport stream over HTTP) runs in a process of its own, and so does, at the same time, a program
that only decodes the same stream with the same library and options. The engine is the null engine. Times are the
kernel's; ``own_ms`` is what is left of child and pipeline without decoding.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import socket
import threading
import time
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from edge.models.shipped import demo_model
from edge.scene.street import Street
from edge.sources.av import AvSource
from edge.types import UInt8

NUM_PICTURES = 60
# of the matrix in H.264's own numbers (ISO/IEC 23091-2): what cameras of this size say
BT709, LIMITED = 1, 1
HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"
HZ = os.sysconf("SC_CLK_TCK")


def pictures(size: tuple[int, int], clip: Path | None) -> list[UInt8]:
    """(H, W, 3) of a clip, or of a street with people."""
    if clip is None:
        street = Street(7, *size, 15, 12)
        return [street.render(index)[0] for index in range(NUM_PICTURES)]
    capture = cv2.VideoCapture(str(clip))
    read = [capture.read()[1] for _ in range(NUM_PICTURES)]
    return [np.asarray(cv2.resize(image, size), np.uint8) for image in read]


def coded(images: list[UInt8], fps: float, times: int) -> list[bytes]:
    """A transport stream in pieces of one picture each, the pictures shown to and fro."""
    out, pieces = io.BytesIO(), []
    with av.open(out, "w", "mpegts", options={"mpegts_flags": "resend_headers"}) as container:
        video: Any = container.add_stream("libx264", rate=round(fps))
        video.height, video.width, video.pix_fmt = *images[0].shape[:2], "yuv420p"
        video.codec_context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "24", "g": "30"}
        video.codec_context.colorspace, video.codec_context.color_range = BT709, LIMITED
        order = [*images, *images[::-1]] * times
        for index, image in enumerate(order):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
                format="yuv420p", dst_colorspace="ITU709"
            )
            frame.pts, frame.time_base = index, Fraction(1, round(fps))
            for packet in video.encode(frame):
                container.mux(packet)
            pieces.append(out.getvalue())
            out.seek(0)
            out.truncate()
    return pieces


def serve(listener: socket.socket, pieces: list[bytes], fps: float) -> None:
    """Send each client the stream at its pace."""

    def send(client: socket.socket) -> None:
        client.recv(4096)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            client.sendall(HEADER)
            for index, piece in enumerate(pieces):
                time.sleep(max(0.0, began + index / fps - time.monotonic()))
                client.sendall(piece)

    while True:
        threading.Thread(target=send, args=(listener.accept()[0],), daemon=True).start()


def decode_alone(url: str, fps: float, seconds: float, answer: Any) -> None:
    """Tell the milliseconds that decoding takes, per frame."""
    source = AvSource(url)
    decoded = source._frames
    for _ in range(round(2 * fps)):
        next(decoded)
    before, num = time.process_time(), round(seconds * fps)
    for _ in range(num):
        next(decoded)
    answer.put((time.process_time() - before) * 1e3 / num)
    answer.close()
    answer.join_thread()
    os._exit(0)


def spent_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def run_camera(url: str, fps: float, seconds: float, model: Path, sinks: list[str]) -> dict[str, float]:
    """Milliseconds a frame: of the child that decodes, and of the pipeline's own process."""
    import psutil

    from edge.config.load import parse_config
    from edge.pipeline import Pipeline

    tree = {
        "model": {"path": str(model), "engine": "null"},
        "streams": [{"name": "cam", "source": url, "sinks": sinks}],
    }
    pipeline = Pipeline(parse_config(tree, where="camera"))
    pipeline.start()
    (stream,) = pipeline.streams.values()
    while stream.metrics.counters["emitted"] < 2 * fps:
        time.sleep(0.1)
    alive = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    (child,) = (one for one in alive if "edge.sources.isolation.child" in one.cmdline())
    before = spent_s(child.pid), time.process_time(), stream.metrics.counters["emitted"]
    time.sleep(seconds)
    after = spent_s(child.pid), time.process_time(), stream.metrics.counters["emitted"]
    shared = sum(row.size for row in child.memory_maps(grouped=False) if "edge-frames" in row.path)
    counts = stream.metrics.counters.snapshot()
    stages: Any = stream.stats()["stages"]
    pipeline.stop()
    num = after[2] - before[2]
    found: dict[str, float] = {
        "frames": num,
        "dropped": sum(n for name, n in counts.items() if name.startswith("drop_")),
    }
    found |= {"child_ms": (after[0] - before[0]) * 1e3 / num, "pipeline_ms": (after[1] - before[1]) * 1e3 / num}
    return found | {"ring_mb": shared / 1e6, **{name: stage["median_ms"] for name, stage in stages.items()}}


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--model", type=Path, default=demo_model("http://camera"))
    parser.add_argument("--clip", type=Path, help="what the camera shows; a rendered street without")
    parser.add_argument("--sink", action="append", default=[])
    parser.add_argument("--opencv-threads", type=int, default=1, help="1 as in edge run")
    parser.add_argument("--pieces", type=Path, help="the coded stream is kept here, for the next run")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    pieces = _pieces(chosen, (width, height))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/cam.ts"
    fork = multiprocessing.get_context("fork")
    camera = fork.Process(target=serve, args=(listener, pieces, chosen.fps), daemon=True)
    camera.start()
    answer = fork.Queue()
    alone = fork.Process(target=decode_alone, args=(url, chosen.fps, chosen.seconds, answer), daemon=True)
    alone.start()
    cv2.setNumThreads(chosen.opencv_threads)
    found = run_camera(url, chosen.fps, chosen.seconds, chosen.model, chosen.sink)
    found["decode_ms"] = answer.get(timeout=60)
    found["own_ms"] = found["child_ms"] + found["pipeline_ms"] - found["decode_ms"]
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    camera.terminate()


def _pieces(chosen: argparse.Namespace, size: tuple[int, int]) -> list[bytes]:
    import pickle

    if chosen.pieces and chosen.pieces.is_file():
        found: list[bytes] = pickle.loads(chosen.pieces.read_bytes())
        return found
    num = next(n for n in count(1) if n * 2 * NUM_PICTURES / chosen.fps > chosen.seconds + 15)
    made = coded(pictures(size, chosen.clip), chosen.fps, num)
    if chosen.pieces:
        chosen.pieces.write_bytes(pickle.dumps(made))
    return made


if __name__ == "__main__":
    main()

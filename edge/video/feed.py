"""Encodes the pictures of one stream once for all WebRTC receivers: the newest picture wins, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edge.metrics.counters import Counters
from edge.pictures.planes import Planes
from edge.threads.drop_queue import DropQueue
from edge.threads.worker import Worker
from edge.types import UInt8
from edge.video.encoder import TICKS_PER_S, Packet, VideoEncoder

# key pictures come when a receiver asks; these are for those that never do
KEY_EVERY_S = 4.0
# a key picture costs as much as ten others: several receivers that ask at once share one
MIN_KEY_GAP_S = 0.5
IDLE_S = 0.25
FALLBACK_FPS = 30.0
NS_PER_S = 1_000_000_000
# 4 Mbit/s at 720p; more than a radio link carries would only be lost
KBPS_PER_PX = 4000 / (1280 * 720)
LEAST_KBPS, MOST_KBPS = 1000, 12_000


class VideoFeed:
    """One stream's encoder and its thread.

    Args:
        name: of the thread.
        encoder: name of an FFmpeg encoder, from ``edge.video.encoder.find_encoder``.
        fps: nominal frame rate, 0 where unknown.
        deliver: takes each packet, in the encoder's thread.
        on_end: told, in the encoder's thread, when it has ended; ``failure`` says why.
        fit: makes a picture as large as it is wanted, in the encoder's thread.

    Attributes:
        counters: ``encoded``, and ``dropped``, which were older than the newest when the encoder came to them.
    """

    def __init__(
        self,
        name: str,
        encoder: str,
        *,
        fps: float,
        deliver: Callable[[Packet], None],
        on_end: Callable[[], None] = lambda: None,
        fit: Callable[[Planes], Planes] = lambda planes: planes,
    ) -> None:
        self._fit = fit
        self._encoder_name = encoder
        self._fps = fps if fps > 0 else FALLBACK_FPS
        self._deliver = deliver
        self.counters: Counters[str] = Counters()
        self._is_key_wanted = threading.Event()
        self._last_key_s = -MIN_KEY_GAP_S
        self._pictures: DropQueue[tuple[Planes, int]] = DropQueue(
            1, is_lossless=False, on_drop=lambda _: self.counters.add("dropped")
        )
        self._worker = Worker(name, self._run, lambda _: on_end())
        self._worker.start()

    @property
    def failure(self) -> BaseException | None:
        return self._worker.failure

    def put(self, picture: UInt8 | Planes, time_ns: int) -> None:
        """Encode this next, unless a newer one comes before.

        Args: (H, W, 3) uint8 BGR or planes, which stay as they are; their monotonic time in ns.
        """
        self._pictures.put((Planes.of(picture), time_ns))

    def ask_key(self) -> None:
        """Make a picture soon that can be decoded without those before it. Any thread may ask."""
        self._is_key_wanted.set()

    def stop(self) -> None:
        """Encode nothing more; does not wait."""
        self._worker.stop()
        self._pictures.close()

    def join(self, timeout_s: float) -> bool:
        return self._worker.join(timeout_s)

    def _run(self, stopping: threading.Event) -> None:
        encoder: VideoEncoder | None = None
        begin_ns, last_pts = 0, -1
        while not stopping.is_set() and not self._pictures.is_finished:
            taken = self._pictures.get(IDLE_S)
            if taken is None:
                continue
            planes, time_ns = self._fit(taken[0]), taken[1]
            begin_ns = begin_ns or time_ns
            if encoder is None or not encoder.takes(planes):
                encoder = self._new_encoder(planes)
            elif self._is_key_due():
                encoder.ask_key()
            last_pts = max(round((time_ns - begin_ns) * TICKS_PER_S / NS_PER_S), last_pts + 1)
            for packet in encoder.encode(planes, last_pts):
                if packet.is_key:
                    self._last_key_s = time.monotonic()
                self._deliver(packet)
            self.counters.add("encoded")

    def _is_key_due(self) -> bool:
        if not self._is_key_wanted.is_set() or time.monotonic() - self._last_key_s < MIN_KEY_GAP_S:
            return False
        self._is_key_wanted.clear()
        return True

    def _new_encoder(self, planes: Planes) -> VideoEncoder:
        width, height = planes.size
        self._is_key_wanted.clear()
        return VideoEncoder(
            self._encoder_name,
            width,
            height,
            fps=self._fps,
            key_every_s=KEY_EVERY_S,
            has_global_header=False,
            max_kbps=round(min(max(KBPS_PER_PX * width * height, LEAST_KBPS), MOST_KBPS)),
            is_baseline=True,
            colour=None if planes.is_bgr else planes.form.colour,
        )

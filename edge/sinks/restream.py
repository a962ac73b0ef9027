"""Sink that pushes the annotated picture, with the camera's sound, to a receiver: RTSP, RTMP, SRT, or HLS in a folder.

A thread encodes, a child process sends. A receiver that is dead, slow or silent costs only this sink: the child is
killed, and started again after a pause. Shape letters: H W frame pixels.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.printable import printable
from edge.addresses.secrets import register_pushed
from edge.addresses.uris import masked, without_keys
from edge.errors import SinkError, sink_error
from edge.files import parse_json
from edge.metrics.counters import Counters
from edge.sinks.restream_child import IS_KEY, IS_SOUND, LENGTH, PACKET, UP
from edge.threads.backoff import Backoff
from edge.threads.drop_queue import DropQueue
from edge.threads.python_process import child_environment, python_command
from edge.threads.worker import Worker
from edge.video.encoder import TICKS_PER_S, Packet, VideoEncoder, VideoForm, find_encoder
from edge.video.packets import NOTHING, PacketForm, PacketTaker, SoundForm, SourcePacket, Wanted
from edge.video.sound_feed import SteadyTimes

if TYPE_CHECKING:
    from edge.types import Result, UInt8
    from edge.video.packets import PacketTap

log = logging.getLogger(__name__)
# the picture that is encoded, and the newest one
CAPACITY = 2
IDLE_S = 0.25
FALLBACK_FPS = 30.0
CLOSE_TIMEOUT_S = 5.0
NS_PER_S = 1_000_000_000
# pieces of sound that wait for the next picture: some seconds
MAX_SOUND = 256
# of what a sender says
MAX_LINE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where pictures are pushed to, as FFmpeg's muxer wants it.

    Attributes:
        label: for people, without secrets.
        sounds: codecs of sound that the format takes, and those that read it; AAC is made of any other.
    """

    url: str
    label: str
    format: str
    options: Mapping[str, str] = field(default_factory=dict)
    key_every_s: float = 1.0
    sounds: tuple[str, ...] = ("aac", "opus")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until a receiver must be connected, and must have taken a packet; the pauses between attempts."""

    connect_s: float = 10.0
    stall_s: float = 5.0
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0


PATIENCE = Patience()


def receiver_of(address: str) -> Receiver:
    """The receiver of an ``rtsp://``, ``rtmp://`` or ``srt://`` address.

    Raises:
        SinkError: the scheme is none of them.
    """
    match address.split("://", 1)[0].lower():
        case "rtsp" | "rtsps":
            return Receiver(address, masked(address), "rtsp", {"rtsp_transport": "tcp"})
        case "rtmp" | "rtmps":
            # the last part of the path is the key of the one who streams
            register_pushed(address)
            return Receiver(
                address, without_keys(address), "flv", {"flvflags": "no_duration_filesize"}, sounds=("aac",)
            )
        case "srt":
            # each picture goes out when it is coded, not when a buffer is full
            return Receiver(address, masked(address), "mpegts", {"flush_packets": "1"})
    raise SinkError(f"{without_keys(address)}: expected rtsp://, rtmp:// or srt://")


class _Push:
    """One attempt: a child and its socket. Every wait has a deadline."""

    def __init__(self, receiver: Receiver, form: VideoForm, patience: Patience, *, is_recoded: bool) -> None:
        self._patience = patience
        self._started_s = time.monotonic()
        self._said = b""
        self.is_up = False
        ours, theirs = socket.socketpair()
        self._channel = ours
        with theirs:
            self._process = subprocess.Popen(
                python_command("edge.sinks.restream_child", str(theirs.fileno()), str(os.getpid())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
            )
        self._channel.settimeout(patience.stall_s)
        order = {
            "url": receiver.url,
            "format": receiver.format,
            "options": dict(receiver.options),
            "timeout_s": patience.stall_s,
            "width": form.width,
            "height": form.height,
            "sample_bytes": len(form.sample),
            "sound_bytes": len(form.sound),
            "is_recoded": is_recoded,
        }
        text = json.dumps(order).encode()
        self._send(LENGTH.pack(len(text)) + text + form.sample + form.sound)

    def send(self, packet: Packet, *, is_sound: bool = False) -> None:
        """Raises: SinkError: the receiver is gone, or takes nothing any more."""
        self.check()
        what = IS_SOUND if is_sound else IS_KEY * packet.is_key
        self._send(PACKET.pack(packet.pts, what, len(packet.data)) + packet.data)

    def check(self) -> None:
        """Hear what the child says. Raises: SinkError: it has failed, ended, or is not connected in time."""
        # a socket with a timeout waits in recv, whatever the flags say
        if not select.select([self._channel], [], [], 0)[0]:
            if not self.is_up and time.monotonic() - self._started_s > self._patience.connect_s:
                raise SinkError(f"not connected within {self._patience.connect_s:g} s")
            return
        try:
            said = self._channel.recv(4096)
        except OSError as error:
            raise SinkError(f"the sender has ended ({error.strerror})") from None
        if not said:
            raise SinkError("the receiver has closed the connection")
        *lines, self._said = (self._said + said).split(b"\n")
        if len(self._said) > MAX_LINE_BYTES:
            raise SinkError("the sender says what it may not")
        for line in lines:
            if line != UP:
                raise SinkError(_reason(line))
            self.is_up = True

    def close(self, timeout_s: float = 0.0) -> None:
        """End the child: at its own pace for so long, then by force."""
        self._channel.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, data: bytes) -> None:
        try:
            self._channel.sendall(data)
        except TimeoutError:
            # while it connects, what it was sent waits in the socket
            limit_s = self._patience.stall_s
            raise SinkError(f"the receiver has taken nothing for {limit_s:g} s") from None
        except OSError:
            self.check()
            raise SinkError("the receiver has closed the connection") from None


def _reason(line: bytes) -> str:
    """Why a sender gave up, in its own words; a receiver may have taken it over."""
    try:
        text = str(parse_json(line)["text"])
    except (ValueError, TypeError, KeyError):
        return "the sender says what it may not"
    return printable(text)[:MAX_LINE_BYTES]


class _Sound(PacketTaker):
    """A camera's sound on its way to a receiver, given by the thread that reads the camera.

    Attributes:
        form: of the sound that comes; None where none does.
        is_wanted: whether the receiver is there.
    """

    def __init__(self) -> None:
        self.form: SoundForm | None = None
        self.is_wanted = False
        self._pieces: deque[SourcePacket] = deque(maxlen=MAX_SOUND)
        self._times = SteadyTimes(TICKS_PER_S)
        self._last = -1

    @property
    def wanted(self) -> Wanted:
        return Wanted.SOUND if self.is_wanted and self.form is not None else NOTHING

    @property
    def is_patient(self) -> bool:
        return self.wanted == NOTHING

    def begin(self, form: PacketForm) -> None:
        self.form = form.sound

    def take(self, packet: SourcePacket) -> None:
        self._pieces.append(packet)

    def since(self, begin_ns: int) -> Iterator[Packet]:
        """What has come, in the times of the pictures, the first of which is of this moment."""
        while self._pieces:
            piece = self._pieces.popleft()
            pts = self._times.place(piece.pts, piece.time_ns) - begin_ns * TICKS_PER_S // NS_PER_S
            if pts > self._last:
                self._last = pts
                yield Packet(piece.data, pts, is_key=False)

    def restart(self) -> None:
        """Nothing of before is for the next connection."""
        self._pieces.clear()
        self._last = -1


class RestreamSink:
    """Pushes one stream. Nothing is drawn or encoded while the receiver is away.

    Args:
        receiver: where to.
        fps: nominal frame rate, 0 where unknown.
        patience: how long a receiver may take.
        sound: gives the camera's sound, which is passed on where the format takes it; None: nobody may hear it.

    Attributes:
        counters: ``sent``, ``dropped`` (older than the newest when the encoder came to it), ``failures``.
        error: why the last attempt failed, empty while all is well.

    Raises:
        MissingError: there is no encoder.
    """

    takes_unseen = True

    def __init__(
        self, receiver: Receiver, *, fps: float, patience: Patience = PATIENCE, sound: PacketTap | None = None
    ) -> None:
        self.name = receiver.label
        self._tap = sound
        self._sound = _Sound()
        self._receiver = receiver
        self._fps = fps if fps > 0 else FALLBACK_FPS
        self._patience = patience
        self._encoder_name = find_encoder(is_hardware_wanted=True)
        self.counters: Counters[str] = Counters()
        self.error = ""
        self._backoff = Backoff(base_s=patience.backoff_base_s, cap_s=patience.backoff_cap_s)
        self._is_away = False
        self._pictures: DropQueue[tuple[UInt8, int]] = DropQueue(
            CAPACITY, is_lossless=False, on_drop=lambda _: self.counters.add("dropped")
        )
        self._worker = Worker(f"restream {receiver.label}", self._run)
        self._worker.start()
        if sound is not None:
            sound.listen(self._sound)

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if self._worker.failure is not None:
            raise SinkError(f"{self.name}: restreaming has ended ({self._worker.failure})")
        if not self._is_away:
            self._pictures.put((picture(), result.frame.time_ns))

    def close(self) -> None:
        if self._tap is not None:
            self._tap.leave(self._sound)
        self._pictures.close()
        self._worker.stop()
        self._worker.join(CLOSE_TIMEOUT_S)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set() and not self._pictures.is_finished:
            try:
                self._serve(stopping)
            except SinkError as error:
                self._pause(error, stopping)

    def _pause(self, error: SinkError, stopping: threading.Event) -> None:
        self.counters.add("failures")
        if not self.error:
            log.warning("%s: %s; it is tried again", self.name, error)
        self.error = str(error)
        self._is_away = True
        stopping.wait(self._backoff.next_delay_s())
        self._is_away = False
        # what waited is old by now
        while self._pictures.get(0.0) is not None:
            self.counters.add("dropped")

    def _serve(self, stopping: threading.Event) -> None:
        """One connection, until it fails, the picture's size or the sound changes, or the stream ends."""
        sound = self._sound
        sound.restart()
        sound.is_wanted, form = True, sound.form
        encoder: VideoEncoder | None = None
        push: _Push | None = None
        begin_ns, last_pts = 0, -1
        try:
            while not stopping.is_set() and not self._pictures.is_finished:
                taken = self._pictures.get(IDLE_S)
                if taken is None:
                    if push is not None:
                        push.check()
                    continue
                image, time_ns = taken
                is_other = encoder is not None and encoder.size != image.shape[:2]
                if encoder is None or is_other or time_ns < begin_ns or form != sound.form:
                    if push is not None:
                        return
                    encoder, begin_ns, form = self._new_encoder(image), time_ns, sound.form
                pts = max(round((time_ns - begin_ns) * TICKS_PER_S / NS_PER_S), last_pts + 1)
                last_pts = pts
                for packet in encoder.encode(image, pts):
                    push = push or self._connected(encoder.form_with(packet), form)
                    push.send(packet)
                    self._note_sent(push)
                if push is not None and form is not None:
                    for piece in sound.since(begin_ns):
                        push.send(piece, is_sound=True)
        finally:
            sound.is_wanted = False
            if push is not None:
                push.close(2.0)

    def _connected(self, form: VideoForm, sound: SoundForm | None) -> _Push:
        header, codec = (b"", "") if sound is None else (sound.header, sound.codec)
        is_recoded = codec not in self._receiver.sounds
        return _Push(self._receiver, replace(form, sound=header), self._patience, is_recoded=is_recoded)

    def _new_encoder(self, image: UInt8) -> VideoEncoder:
        height, width = image.shape[:2]
        return VideoEncoder(
            self._encoder_name,
            width,
            height,
            fps=self._fps,
            key_every_s=self._receiver.key_every_s,
            has_global_header=False,
        )

    def _note_sent(self, push: _Push) -> None:
        self.counters.add("sent")
        if push.is_up:
            if self.error:
                log.info("%s: connected again", self.name)
            self.error = ""
            self._backoff.reset()


def hls_receiver(folder: Path) -> Receiver:
    """HLS in a folder: ``index.m3u8`` and the last segments of two seconds, each of which appears whole.

    Raises:
        SinkError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("part-*.ts"):
            old.unlink(missing_ok=True)
    except OSError as error:
        raise sink_error(f"hls:{folder} cannot be written ({error.strerror})", error) from None
    options = {
        "hls_time": "2",
        "hls_list_size": "6",
        "hls_flags": "delete_segments+temp_file+independent_segments+program_date_time",
        # numbers that were never used before: a player must not take a new segment for an old one
        "hls_start_number_source": "epoch",
        "hls_segment_filename": str(folder / "part-%d.ts"),
    }
    return Receiver(str(folder / "index.m3u8"), f"hls:{folder}", "hls", options, key_every_s=2.0, sounds=("aac",))

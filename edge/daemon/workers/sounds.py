"""The sound of a worker's camera on its way to the daemon, where others listen.

What it is goes there whenever the camera is opened; itself only while somebody listens.
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from edge.daemon.workers.link import Link, LinkClosedError
from edge.video.packets import NOTHING, PacketForm, PacketTaker, PacketTap, SoundForm, SourcePacket, Wanted

if TYPE_CHECKING:
    from edge.daemon.workers.link import Message

# a piece of AAC or Opus has a few hundred; what cannot go in one message is none
MAX_BYTES = 60_000


class SoundSender(PacketTaker):
    """The worker's side: runs in the thread that reads the camera.

    Args:
        stream: whose sound it is.
        link: to the daemon.
        is_heard: whether somebody listens there.
    """

    def __init__(self, stream: str, link: Link, is_heard: Callable[[], bool]) -> None:
        self._stream = stream
        self._link = link
        self._is_heard = is_heard

    @property
    def wanted(self) -> Wanted:
        return Wanted.SOUND if self._is_heard() else NOTHING

    def begin(self, form: PacketForm) -> None:
        sound, facts = form.sound, {}
        if sound is not None and len(sound.header) <= MAX_BYTES:
            facts = {"codec": sound.codec, "header": b64encode(sound.header).decode()}
        # the daemon is gone: this process ends by itself
        with suppress(LinkClosedError):
            self._link.send("sound form", stream=self._stream, sound=facts)

    def take(self, packet: SourcePacket) -> None:
        if len(packet.data) > MAX_BYTES:
            return
        data = b64encode(packet.data).decode()
        with suppress(LinkClosedError):
            self._link.send(
                "sound", may_drop=True, stream=self._stream, data=data, pts=packet.pts, time_ns=packet.time_ns
            )


class SoundElsewhere(PacketTap):
    """The daemon's side: what a worker sends, for who listens here.

    Args:
        on_change: told whether somebody listens.
    """

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        super().__init__()
        self._on_change = on_change
        # what was told last is how it is
        self._telling = threading.Lock()

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens."""
        return bool(self.wanted)

    def listen(self, listener: PacketTaker) -> None:
        with self._telling:
            super().listen(listener)
            self._on_change(self.is_heard)

    def leave(self, listener: PacketTaker) -> None:
        with self._telling:
            super().leave(listener)
            self._on_change(self.is_heard)

    def take_message(self, message: Message) -> None:
        """What ``SoundSender`` sends."""
        if message["kind"] == "sound form":
            said = message["sound"]
            sound = SoundForm(said["codec"], b64decode(said["header"])) if said else None
            self.begin(PacketForm("", 0, 0, b"", sound))
        else:
            pts, time_ns = message["pts"], message["time_ns"]
            self.take(SourcePacket(b64decode(message["data"]), pts, pts, True, time_ns, time_ns, is_sound=True))

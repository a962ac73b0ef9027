"""A recording that is switched off keeps nothing, not even for a later clip, and goes on when it is switched on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import record_kills as scene
from waiting import wait_until

from edge.config.recording import RecordSettings
from edge.sinks.record import RecordSink
from edge.types import Detections, Event, Frame, Result
from edge.video.encoder import VideoEncoder, find_encoder
from edge.video.packets import PacketForm, PacketQueue, SourcePacket

FPS = scene.FPS


class Switched:
    """A recording of numbered pictures, or of their packets, that can be switched."""

    def __init__(self, folder: Path, content: str, mode: str) -> None:
        self.is_on = True
        self.folder = folder / "door"
        self._packets = PacketQueue(is_lossless=True) if content == "source" else None
        chosen = RecordSettings.model_validate(
            {"folder": folder, "content": content, "mode": mode, "reserve_mb": 0, "pre_roll_s": 30, "post_roll_s": 2}
        )
        more: dict[str, Any] = {"packets": self._packets, "late_s": 1.0} if self._packets else {"is_lossless": True}
        self.sink = RecordSink(chosen, "door", fps=FPS, is_on=lambda: self.is_on, **more)
        self._encoder = VideoEncoder(find_encoder(), scene.WIDTH, scene.HEIGHT, fps=FPS, key_every_s=0.5)

    def run(self, numbers: range, event: int | None = None) -> list[str | None]:
        links = []
        for number in numbers:
            image, time_ns = scene.numbered(number), number * 10**9 // FPS
            for packet in self._encoder.encode(image, number * 90_000 // FPS) if self._packets else ():
                assert self._packets is not None
                if number == 0:
                    sample = self._encoder.form_with(packet).sample
                    self._packets.begin(PacketForm("h264", scene.WIDTH, scene.HEIGHT, sample))
                self._packets.take(SourcePacket(packet.data, packet.pts, packet.pts, packet.is_key, time_ns, time_ns))
            events = (Event("tick", "door", number, 1),) if number == event else ()
            shown = Result(Frame("door", 0, number, time_ns, None, image), Detections.empty(), events=events)
            self.sink.write(shown, lambda image=image: image)  # type: ignore[misc]
            if events:
                links.append(self.sink.clip_of(shown))
        return links

    def switch(self, *, is_on: bool) -> None:
        """Once the recorder has taken all that came before."""
        wait_until(lambda: len(self.sink._queue) == 0)
        time.sleep(0.3)
        self.is_on = is_on
        # and has seen that, at its next look
        time.sleep(0.6)

    def shown(self) -> list[int]:
        return [number for path in sorted(self.folder.glob("*.mp4")) for number in scene.numbers_in(path)]


@pytest.mark.parametrize("content", ["source", "plain"])
def test_nothing_that_was_taken_while_it_was_off_is_kept(tmp_path: Path, content: str) -> None:
    recording = Switched(tmp_path, content, "continuous")
    recording.run(range(40))
    recording.switch(is_on=False)
    # the file that was open is whole now
    wait_until(lambda: len(list(recording.folder.glob("*.mp4"))) == 1)
    recording.run(range(40, 80))
    recording.switch(is_on=True)
    recording.run(range(80, 140))
    recording.sink.close()
    shown = recording.shown()
    assert shown[:30] == list(range(30)) and shown[-20:] == list(range(120, 140))
    assert not set(shown) & set(range(40, 80))


@pytest.mark.parametrize("content", ["source", "plain"])
def test_a_clip_shows_nothing_from_before_it_was_switched_on(tmp_path: Path, content: str) -> None:
    recording = Switched(tmp_path, content, "events")
    recording.run(range(40))
    recording.switch(is_on=False)
    assert recording.run(range(40, 80), event=60) == [None]
    recording.switch(is_on=True)
    (clip,) = recording.run(range(80, 160), event=110)
    recording.sink.close()
    shown = recording.shown()
    assert clip is not None and Path(clip).is_file()
    assert shown and min(shown) >= 80 and 110 in shown

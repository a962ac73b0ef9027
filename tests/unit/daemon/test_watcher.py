"""The thread that keeps the watch log: what it sees of streams, and of clocks that jump."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.config.daemon import WatchLogSettings
from edge.config.schema import StreamSettings
from edge.daemon.watcher import Watcher, facts_of, masked_share
from edge.model import find_manifest
from edge.models.shipped import FOLDER
from edge.pipeline.analysis import StreamAnalysis
from edge.pipeline.stream import Stream
from edge.types import HealthChange
from edge.watchlog.certificate import certify
from edge.watchlog.keys import DeviceKey
from edge.watchlog.seconds import Analysed

NS = 1_000_000_000
WALL_S = 1_796_000_000
MANIFEST = find_manifest(FOLDER / "street-nano-int8.onnx")


class Clocks:
    """Clocks that a test sets."""

    def __init__(self) -> None:
        self.second = 100
        self.wall_s = 0
        self.slept_s = 0

    def now_ns(self) -> int:
        return self.second * NS + 10_000_000

    def offset_ns(self) -> int:
        return (WALL_S + self.wall_s) * NS

    def asleep_ns(self) -> int:
        return self.slept_s * NS

    def boot(self) -> str:
        return "boot"


class Rig:
    """A watcher, its clocks, and one stream ``door`` that gives 4 frames a second."""

    def __init__(self, folder: Path) -> None:
        self.clocks = Clocks()
        self.folder = folder
        self.stream = made()
        self.streams: Mapping[str, Stream] = {"door": self.stream}
        self.watcher = Watcher(lambda: self.streams, folder / "watch", WatchLogSettings(), self.clocks)
        self.watcher.tick()

    def run(self, seconds: int, frames: int = 4, model: str = "m" * 64, **drops: int) -> None:
        for _ in range(seconds):
            for number in range(frames):
                at_ns = self.clocks.second * NS + number * NS // 4
                assert self.stream.analysed is not None
                self.stream.analysed.append(Analysed(at_ns, model, ()))
            for cause, count in drops.items():
                self.stream.metrics.counters.add(cause, count)  # type: ignore[arg-type]
            self.clocks.second += 1
            self.watcher.tick()

    def told(self, first_s: int, until_s: int) -> dict[str, Any]:
        key = DeviceKey.of_folder(self.folder)
        window = [(WALL_S + second) * NS for second in (first_s, until_s)]
        found = certify(self.folder / "watch" / "door", "door", key, window[0], window[1])
        return dict(found["statement"])


def made(**settings: Any) -> Stream:
    config = StreamSettings(name="door", source="rtsp://camera/1", **settings)
    stream = Stream(
        config, "model", MANIFEST, StreamAnalysis("door", MANIFEST.classes, tracker=None, settings=config.analytics)
    )
    stream.analysed = deque()
    stream.status.state = "streaming"
    return stream


def test_every_state_of_a_camera_has_its_word(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    rig.run(2, frames=0, drop_too_old=4)
    rig.stream.status.state = "backing_off"
    rig.run(3, frames=0)
    rig.stream.status.state = "streaming"
    rig.stream.status.note_health(HealthChange("camera_dark"))
    rig.run(4)
    rig.stream.status.note_health(HealthChange("camera_recovered", {"from": "dark"}))
    rig.run(6)
    rig.watcher.close()
    told = rig.told(100, 120)
    assert told["analysed_s"] == 11
    assert told["states"] == {"dark": 4, "dropped": 2, "offline": 3}
    assert told["drops"] == {"drop_too_old": 8}
    # the last frame before stood at 104.75
    assert told["largest_gap_s"] == 9.25


def test_a_program_that_stood_still_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    rig.clocks.second += 10
    rig.run(5)
    rig.watcher.close()
    told = rig.told(100, 120)
    assert told["states"] == {"halted": 10}
    assert told["unaccounted_s"] == 0


def test_clocks_that_jump_and_machines_that_sleep_are_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    rig.clocks.wall_s += 1000
    rig.run(5)
    rig.clocks.wall_s += 50
    rig.clocks.slept_s += 50
    rig.run(5)
    rig.watcher.close()
    told = rig.told(100, 100 + 15 + 1050)
    assert [one["what"] for one in told["happened"]] == [
        "the clock was set forward by 1000.0 s",
        "the machine slept for 50.0 s",
    ]
    assert (told["analysed_s"], told["unaccounted_s"]) == (15, 50)


def test_another_model_is_noted_from_its_first_frame_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    rig.run(5, model="n" * 64)
    rig.watcher.close()
    assert [facts["model"][0] for facts in rig.told(100, 110)["facts"]] == ["m", "n"]
    assert [facts["model"][0] for facts in rig.told(106, 110)["facts"]] == ["n"]


def test_a_stream_that_is_begun_anew_is_told_with_its_new_settings(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    rig.stream = made(masks=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),))
    rig.streams = {"door": rig.stream}
    rig.run(5)
    rig.watcher.close()
    told = rig.told(100, 110)
    assert [one["what"] for one in told["happened"]] == ["the stream was started again; 0 s were not watched"]
    assert [facts["masked_share"] for facts in told["facts"]][-1] > 0.49
    assert told["analysed_share"] > 0.8


def test_lines_that_are_drawn_anew_are_told_by_another_hash(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(5)
    lines = {"lines": [{"name": "gate", "points_share": [(0, 0.5), (1, 0.5)]}]}
    rig.stream.config = made(analytics=lines).config
    rig.run(5)
    rig.watcher.close()
    assert len({facts["config"] for facts in rig.told(100, 110)["facts"]}) == 2
    assert rig.told(100, 110)["analysed_share"] == 1


def test_the_facts_are_hashes_of_what_runs() -> None:
    plain, masked = StreamSettings(name="door", source="0"), made(masks=(((0, 0), (1, 0), (1, 1)),)).config
    assert facts_of(plain, "m")["masks"] == ""
    assert facts_of(masked, "m")["masks"] != ""
    assert facts_of(plain, "m")["config"] != facts_of(masked, "m")["config"]
    assert abs(masked_share(masked.masks) - 0.5) < 0.01


def test_a_folder_that_cannot_be_used_costs_the_log_alone(tmp_path: Path) -> None:
    (tmp_path / "watch").write_text("no folder")
    rig = Rig(tmp_path)
    rig.run(3)
    rig.watcher.close()
    assert (tmp_path / "watch").read_text() == "no folder"

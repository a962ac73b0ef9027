"""The synthetic street as a source: its contract, its pace, and what it says about wrong addresses."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import SourceError
from edge.scene.street import Street
from edge.sources.synthetic import SyntheticSettings, SyntheticSource, open_synthetic, parse_synthetic

_SMALL = "synthetic://street?seed=3&size=160x96&objects=3"


class _Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


def _live(clock: _Clock, frames: int | None = None) -> SyntheticSource:
    settings = SyntheticSettings(seed=3, fps=10, width=160, height=96, objects=2, frames=frames, live=True)
    return SyntheticSource(settings, clock=clock, sleep=clock.pass_s)


def test_a_recorded_scene_gives_every_frame_with_its_time_and_then_ends() -> None:
    source = open_synthetic(_SMALL + "&fps=25&frames=3")
    assert (source.info.width, source.info.height, source.info.fps) == (160, 96, 25)
    assert (source.info.is_live, source.info.num_frames) == (False, 3)
    frames = [source.read() for _ in range(4)]
    assert [None if frame is None else frame[1] for frame in frames] == [0, 40_000_000, 80_000_000, None]
    assert source.read() is None


def test_pictures_are_those_of_the_street_and_nobody_else_writes_to_them() -> None:
    source = open_synthetic(_SMALL)
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert first[0].shape == (96, 160, 3)
    assert not np.shares_memory(first[0], second[0])
    street = Street(3, 160, 96, 30, 3)
    assert np.array_equal(second[0], street.render(1)[0])
    assert np.array_equal(source.truth.xyxy, street.render(1)[1].xyxy)


def test_truth_before_the_first_frame_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no frame was read"):
        _ = open_synthetic(_SMALL).truth


def test_a_live_scene_is_paced_by_the_clock() -> None:
    clock = _Clock()
    source = _live(clock)
    assert source.info.is_live
    times = []
    for _ in range(5):
        frame = source.read()
        assert frame is not None
        assert frame[1] is None
        times.append(clock.now_s)
    assert times == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])


def test_a_slow_reader_of_a_live_scene_skips_what_it_missed() -> None:
    clock = _Clock()
    source = _live(clock)
    source.read()
    clock.pass_s(2.05)
    late = source.read()
    assert late is not None
    assert clock.now_s == pytest.approx(102.05)
    assert np.array_equal(late[0], Street(3, 160, 96, 10, 2).render(20)[0])
    source.read()
    assert clock.now_s == pytest.approx(102.1)


def test_a_live_scene_ends_at_its_last_frame_even_when_that_was_missed() -> None:
    clock = _Clock()
    source = _live(clock, frames=5)
    assert source.read() is not None
    clock.pass_s(3.0)
    assert source.read() is None


def test_closing_twice_is_fine_and_reading_after_it_is_an_error() -> None:
    source = open_synthetic(_SMALL)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read()


def test_an_address_may_leave_everything_out() -> None:
    assert parse_synthetic("synthetic://street") == SyntheticSettings()
    full = parse_synthetic("synthetic://street?seed=7&fps=12.5&size=640x360&objects=0&frames=9&live=1")
    assert full == SyntheticSettings(7, 12.5, 640, 360, 0, 9, True)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("//beach", "no such synthetic scene"),
        ("//street/side", "no such synthetic scene"),
        ("//street?speed=3", "unknown key 'speed'; expected seed, fps, size, objects, frames or live"),
        ("//street?seed=-1", "seed=-1 is not possible; expected a whole number from 0"),
        ("//street?seed=", "seed= is not possible"),
        ("//street?fps=0", "fps=0 is not possible; expected frames per second from 0.1 to 1000"),
        ("//street?fps=nan", "fps=nan is not possible"),
        ("//street?fps=fast", "fps=fast is not possible"),
        ("//street?size=1280", "size=1280 is not possible; expected WIDTHxHEIGHT"),
        ("//street?size=20x20", "size=20x20 is not possible"),
        ("//street?objects=1000", "objects=1000 is not possible; expected a whole number from 0 to 200"),
        ("//street?frames=0", "frames=0 is not possible"),
        ("//street?live=yes", "live=yes is not possible; expected a whole number from 0 to 1"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(query: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_synthetic("synthetic:" + query)
    assert message in str(caught.value)
    assert query in str(caught.value)

"""What a camera's picture tells of the camera: frozen, dark, glaring, covered, out of focus, and well again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache

import cv2
import numpy as np
import pytest

from edge.sources.health import HealthLimits, HealthMonitor
from edge.types import Float32, UInt8

FPS = 5


@cache
def still() -> UInt8:
    """Walls and windows: patches with sharp edges."""
    patches = np.random.default_rng(7).integers(30, 200, (23, 40, 3), np.uint8)
    return np.kron(patches, np.ones((8, 8, 1), np.uint8))[:180]


@cache
def much_noise() -> Float32:
    return np.random.default_rng(0).standard_normal(4 * still().size, np.float32)


def noise(index: int) -> Float32:
    """The noise of a picture: another part of the same for each, which costs less than to draw it."""
    begin = int(np.random.default_rng(index).integers(3 * still().size))
    return much_noise()[begin : begin + still().size].reshape(still().shape)


@cache
def noisy(index: int) -> UInt8:
    picture = np.clip(still() + noise(index), 0, 255).astype(np.uint8)
    picture.setflags(write=False)
    return picture


def told(pictures: Iterable[UInt8], frozen_s: float = 4.0, hold_s: float = 2.0) -> list[tuple[float, str, str]]:
    """(second, kind, from) of every change."""
    monitor = HealthMonitor(HealthLimits(frozen_s, hold_s))
    found = []
    for index, image in enumerate(pictures):
        for change in monitor.update(image, round(index * 1e9 / FPS)):
            found.append((index / FPS, change.kind, change.data.get("from", "")))
    return found


def with_clock(image: UInt8, index: int) -> UInt8:
    painted = image.copy()
    cv2.putText(painted, f"22.11.2026 10:00:{index // FPS:02d}", (4, 16), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255), 1)
    return painted


def test_a_repeated_picture_is_frozen_and_a_live_one_takes_it_back() -> None:
    pictures = [noisy(i) for i in range(20)] + [noisy(19)] * 30 + [noisy(i) for i in range(50, 70)]
    changes = told(pictures)
    assert [(kind, was) for _, kind, was in changes] == [("camera_frozen", ""), ("camera_recovered", "frozen")]
    assert changes[0][0] == pytest.approx(19 / FPS + 4, abs=0.5)
    assert changes[1][0] <= 50 / FPS + 1


def test_a_camera_that_is_opened_anew_stays_frozen_until_its_picture_moves() -> None:
    monitor = HealthMonitor(HealthLimits(frozen_s=4.0, hold_s=0), [("frozen", -round(60e9))])
    pictures = [noisy(7)] * 10 + [noisy(i) for i in range(20, 40)]
    changes = [
        (i / FPS, change) for i, image in enumerate(pictures) for change in monitor.update(image, i * 200_000_000)
    ]
    ((second, change),) = changes
    assert (change.kind, change.data["from"]) == ("camera_recovered", "frozen")
    assert 2.0 < second < 3.0
    assert change.data["seconds"] == pytest.approx(60 + second, abs=0.2)


@pytest.mark.parametrize("name", ["dark", "overexposed", "covered", "defocused"])
def test_what_blinded_a_camera_is_taken_back_after_it_was_opened_anew(name: str) -> None:
    monitor = HealthMonitor(HealthLimits(frozen_s=0, hold_s=2.0), [(name, 0)])
    changes = [change for i in range(40) for change in monitor.update(noisy(i), i * 200_000_000)]
    assert [(change.kind, change.data["from"]) for change in changes] == [("camera_recovered", name)]


@pytest.mark.parametrize("fps", [0.2, 0.5, 1.0])
def test_a_slow_camera_thaws_too(fps: float) -> None:
    monitor = HealthMonitor(HealthLimits(frozen_s=30.0, hold_s=0))
    pictures = [noisy(0)] * 40 + [noisy(i) for i in range(10)]
    changes = [change for i, image in enumerate(pictures) for change in monitor.update(image, round(i * 1e9 / fps))]
    assert [change.kind for change in changes] == ["camera_frozen", "camera_recovered"]


def test_a_clock_that_goes_on_does_not_hide_a_frozen_picture() -> None:
    pictures = [with_clock(noisy(min(i, 10)), i) for i in range(50)]
    assert [kind for _, kind, _ in told(pictures)] == ["camera_frozen"]


def test_a_still_but_noisy_scene_is_not_frozen() -> None:
    assert told(noisy(i) for i in range(100)) == []


def test_an_empty_street_without_noise_in_which_someone_walks_is_not_frozen() -> None:
    def walking(index: int) -> UInt8:
        image = still().copy()
        image[100:130, 20 + index * 2 : 32 + index * 2] = 30
        return image

    assert told(walking(i) for i in range(100)) == []


def test_one_key_frame_coded_anew_does_not_end_a_frozen_picture() -> None:
    pictures = [noisy(0)] * 30 + [noisy(1)] * 60
    assert [kind for _, kind, _ in told(pictures)] == ["camera_frozen"]


DARK: Callable[[int], UInt8] = lambda i: (noisy(i) // 16).astype(np.uint8)  # noqa: E731
GLARE: Callable[[int], UInt8] = lambda i: np.clip(noisy(i).astype(np.int16) * 6, 0, 255).astype(np.uint8)  # noqa: E731
COVERED: Callable[[int], UInt8] = lambda i: np.clip(  # noqa: E731
    np.linspace(70, 90, 320)[None, :, None] + 3 * noise(i),
    0,
    255,
).astype(np.uint8)
BLURRED: Callable[[int], UInt8] = lambda i: np.asarray(cv2.GaussianBlur(noisy(i), (0, 0), 8), np.uint8)  # noqa: E731


@pytest.mark.parametrize(
    ("spoilt", "name"), [(DARK, "dark"), (GLARE, "overexposed"), (COVERED, "covered"), (BLURRED, "defocused")]
)
def test_what_blinds_a_camera_is_told_once_and_taken_back(spoilt: Callable[[int], UInt8], name: str) -> None:
    pictures = [noisy(i) for i in range(50)] + [spoilt(i) for i in range(50, 100)] + [noisy(i) for i in range(100, 150)]
    changes = told(pictures)
    assert [(kind, was) for _, kind, was in changes] == [(f"camera_{name}", ""), ("camera_recovered", name)]
    assert 2.0 <= changes[0][0] - 10 <= 4.0
    assert 2.0 <= changes[1][0] - 20 <= 4.5


def test_a_short_darkness_is_not_told() -> None:
    pictures = [noisy(i) for i in range(30)] + [DARK(i) for i in range(30, 36)] + [noisy(i) for i in range(36, 60)]
    assert told(pictures) == []


def test_a_light_that_flickers_at_the_threshold_is_not_told_again_and_again() -> None:
    pictures = [DARK(i) if (i // 4) % 2 else noisy(i) for i in range(150)]
    assert told(pictures) == []


def test_nothing_is_watched_where_nothing_shall_be() -> None:
    assert told([noisy(0) // 16] * 100, frozen_s=0, hold_s=0) == []


@pytest.mark.parametrize("size", [(0, 0), (5, 5), (15, 8), (16, 9), (33, 17), (160, 90), (641, 361)])
def test_any_size_of_picture_is_looked_at_or_left_alone(size: tuple[int, int]) -> None:
    assert told([np.full((size[1], size[0], 3), 120, np.uint8)] * 3) == []


def test_a_size_that_changes_is_no_error() -> None:
    assert told((np.full((90 + i, 160, 3), 120 + i, np.uint8) for i in range(20)), hold_s=0) == []


def test_it_costs_less_than_a_fifth_of_a_millisecond_per_720p_picture() -> None:
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    spent = []
    for _ in range(3):
        monitor = HealthMonitor(HealthLimits())
        started = time.thread_time()
        for index in range(60):
            monitor.update(image, index * 33_333_333)
        spent.append((time.thread_time() - started) / 60 * 1e3)
    assert min(spent) < 0.2, spent

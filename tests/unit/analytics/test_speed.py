"""Speeds in pixels and, through four points of the ground, in metres; and where objects spend their time."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.analytics.analytics import StreamAnalytics
from edge.analytics.heatmap import Heatmap
from edge.analytics.speed import Ground
from edge.config.analytics import AnalyticsSettings, GroundSettings, HeatmapSettings, LineSettings
from edge.errors import ConfigError
from edge.types import Tracks

WIDTH, HEIGHT = 1280, 720
# a road 7 m wide and 20 m long, seen from a bridge
ROAD_PX = ((540, 300), (740, 300), (1000, 700), (280, 700))
ROAD_M = ((0, 20), (7, 20), (7, 0), (0, 0))
ROAD = GroundSettings(image_px=ROAD_PX, ground_m=ROAD_M)


def track(x: float, y: float, velocity: tuple[float, float], track_id: int = 1) -> Tracks:
    return Tracks(
        np.array([track_id], np.int64),
        np.array([[x - 30, y - 60, x + 30, y]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        np.ones(1, np.float32),
        np.array([velocity], np.float32),
        np.zeros(1, np.int32),
    )


def analytics_with(**parts: Any) -> StreamAnalytics:
    return StreamAnalytics(AnalyticsSettings(**parts), stream="road", classes=("car",), width=WIDTH, height=HEIGHT)


def test_the_four_points_lie_where_they_were_measured() -> None:
    metres, _ = Ground(ROAD, "road", WIDTH, HEIGHT).locate(np.array(ROAD_PX, np.float32), np.zeros((4, 2), np.float32))
    assert metres == pytest.approx(np.array(ROAD_M), abs=1e-6)


def test_ground_positions_agree_with_opencv() -> None:
    matrix = cv2.getPerspectiveTransform(np.array(ROAD_PX, np.float32), np.array(ROAD_M, np.float32))
    points = np.random.default_rng(0).uniform((300, 320), (900, 700), (50, 2)).astype(np.float32)
    metres, _ = Ground(ROAD, "road", WIDTH, HEIGHT).locate(points, np.zeros_like(points))
    assert metres == pytest.approx(cv2.perspectiveTransform(points[None], matrix)[0], abs=1e-3)


@settings(max_examples=examples(50), deadline=None)
@given(st.floats(0.5, 6.5), st.floats(0.5, 19), st.floats(0, 2 * np.pi), st.floats(0.1, 40))
def test_a_known_speed_on_the_ground_is_measured(x: float, y: float, heading: float, speed_m_s: float) -> None:
    back = cv2.getPerspectiveTransform(np.array(ROAD_M, np.float32), np.array(ROAD_PX, np.float32)).astype(np.float64)

    def project(at: np.ndarray) -> np.ndarray:
        u, v, w = back @ (*at, 1.0)
        return np.array([u, v]) / w

    here, step = np.array([x, y]), 1e-4 * np.array([np.cos(heading), np.sin(heading)])
    velocity = (project(here + step) - project(here - step)) / 2e-4 * speed_m_s
    pixel = project(here)
    motion = analytics_with(ground=ROAD).motion(track(pixel[0], pixel[1], (velocity[0], velocity[1])))
    assert motion.speed_m_s[0] == pytest.approx(speed_m_s, rel=1e-2)
    assert motion.ground_m[0] == pytest.approx(here, abs=1e-2)
    assert motion.speed_px_s[0] == pytest.approx(np.hypot(*velocity), rel=1e-3)


def test_the_sky_has_no_ground() -> None:
    motion = analytics_with(ground=ROAD).motion(track(640, 80, (10, 0)))
    assert np.isnan(motion.speed_m_s).all() and np.isnan(motion.ground_m).all()
    assert motion.speed_px_s[0] == 10


def test_without_calibration_there_are_only_pixels() -> None:
    motion = analytics_with().motion(track(640, 500, (3, 4)))
    assert motion.speed_px_s[0] == 5 and np.isnan(motion.speed_m_s[0])
    assert len(analytics_with(ground=ROAD).motion(Tracks.empty()).speed_m_s) == 0


def test_events_carry_speed_and_position_on_the_ground() -> None:
    analytics = analytics_with(ground=ROAD, lines=(LineSettings(name="stop", points_px=((200, 600), (1100, 600))),))
    events = [
        event
        for number, y in enumerate((500, 540, 580, 620, 660, 660, 660, 660))
        for event in analytics.update(track(640, y, (0, 100)), number * 100_000_000)
    ]
    (event,) = events
    assert event.data["speed_km_h"] == pytest.approx(event.data["speed_m_s"] * 3.6, abs=0.05)
    assert 1 < event.data["speed_m_s"] < 10
    assert event.data["position_m"][0] == pytest.approx(3.5, abs=0.1)


@pytest.mark.parametrize(
    ("image", "ground", "message"),
    [
        (((0, 0), (100, 100), (200, 200), (0, 200)), ROAD_M, "lie three on a line"),
        (((0, 0), (100, 0), (0, 100), (100, 100)), ROAD_M, "cross over"),
        (((0, 0), (0, 0), (100, 100), (0, 100)), ROAD_M, "cross over"),
        (((0, 0), (400, 0), (100, 100), (0, 400)), ROAD_M, "corner that points inwards"),
        (((100, 100), (0, 400), (0, 0), (400, 0)), ROAD_M, "corner that points inwards"),
        (ROAD_PX, ((0, 0), (0, 0), (0, 0), (0, 0)), "its ground_m .* cross over"),
    ],
)
def test_a_degenerate_calibration_is_a_config_error(image: Any, ground: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"road: ground: .*{message}"):
        analytics_with(ground=GroundSettings(image_px=image, ground_m=ground))


def test_calibration_points_are_given_once() -> None:
    with pytest.raises(ValidationError, match="exactly one of image_px and image_share"):
        GroundSettings(ground_m=ROAD_M)


def test_heat_is_seconds_per_cell() -> None:
    analytics = analytics_with(heatmap=HeatmapSettings(cell_px=16))
    for number in range(21):
        analytics.update(track(640, 400, (0, 0)), number * 500_000_000)
    heatmap = analytics._heatmap
    assert heatmap is not None
    assert heatmap.seconds[400 // 16, 640 // 16] == pytest.approx(10)
    assert heatmap.seconds.sum() == pytest.approx(10)


def test_heat_fades_with_its_half_life() -> None:
    analytics = analytics_with(heatmap=HeatmapSettings(half_life_s=10))
    for number in range(3):
        analytics.update(track(640, 400, (0, 0)), number * 1_000_000_000)
    heatmap = analytics._heatmap
    assert heatmap is not None
    before = float(heatmap.seconds.sum())
    analytics.update(Tracks.empty(), 12_000_000_000)
    assert float(heatmap.seconds.sum()) == pytest.approx(before / 2)


@pytest.mark.parametrize(
    ("width", "height", "cell_px"), [(1280, 720, 16), (1920, 1080, 64), (333, 251, 10), (64, 48, 4)]
)
def test_a_heat_map_is_clear_where_nobody_was_and_has_the_shape_of_the_frame(
    width: int, height: int, cell_px: int
) -> None:
    heatmap = Heatmap(HeatmapSettings(cell_px=cell_px), width, height)
    heatmap.update(np.array([[0, 0, width / 2, height * 0.75]], np.float32), np.ones(1, np.bool_), 1.0)
    drawn = heatmap.draw()
    assert drawn.shape == (round(height * min(1, 480 / width)), min(width, 480), 4)
    opacity = drawn[..., 3]
    assert opacity[round(drawn.shape[0] * 0.74), drawn.shape[1] // 4] > 100, "at the foot of the box"
    assert not opacity[:, drawn.shape[1] * 3 // 4 :].any()


def test_a_heat_map_of_nobody_is_clear() -> None:
    assert not Heatmap(HeatmapSettings(), 640, 360).draw()[..., 3].any()

"""Stored tracks give, through whole columns, the events that the live rules gave frame by frame: to the last bit."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.trackstore.scenes import head

from edge.analytics.analytics import StreamAnalytics
from edge.analytics.schedule import utc
from edge.config.analytics import AnalyticsSettings
from edge.errors import ConfigError
from edge.trackstore.block import Block, Steps, decode, encode, is_away
from edge.trackstore.collect import FrameFacts, block_of
from edge.trackstore.compact import joined
from edge.trackstore.evaluate import evaluate, reported, within
from edge.trackstore.parts import Span
from edge.trackstore.rounding import near
from edge.types import Detections, Event, Label, Tracks

SIZE = (640, 360)
CLASSES = ("person", "car")
# a Sunday, 22:00 UTC
BEGUN = int(datetime(2026, 11, 22, 22, tzinfo=timezone.utc).timestamp() * 1e9)
NIGHT = {"start_at": "22:00", "end_at": "22:00:20", "time_zone": "UTC"}


def rules(**more: Any) -> AnalyticsSettings:
    drawn = {
        "lines": [
            {"name": "mid", "points_px": [[320, 20], [320, 340]]},
            {"name": "across", "points_px": [[100, 200], [500, 150]], "classes": ["car"], "schedules": [NIGHT]},
            {"name": "quick", "points_px": [[200, 40], [220, 330]], "settle_s": 0, "anchor": "centre"},
        ],
        "zones": [
            {
                "name": "left",
                "points_px": [[20, 20], [300, 20], [300, 340], [20, 340]],
                "loiter_s": 1.0,
                "stopped_s": 0.7,
                "stopped_heights_per_s": 0.3,
                "crowd_count": 2,
                "crowd_s": 0.5,
            },
            {
                "name": "right",
                "points_px": [[330, 10], [630, 10], [600, 350]],
                "schedules": [NIGHT],
                "classes": ["person"],
                "stopped_s": 0.4,
                "stopped_heights_per_s": 2.0,
                "settle_s": 0,
            },
        ],
    }
    return AnalyticsSettings.model_validate({**drawn, **more})


def walks(seed: int, count: int, *, flickers: bool, restarts: bool) -> list[tuple[int, Tracks]]:
    """Times and tracks: objects that walk, stand, turn, vanish for a while and come back, at uneven times."""
    chance = np.random.default_rng(seed)
    steps, num = Steps.of(*SIZE), int(chance.integers(1, 9))
    place, step = chance.uniform((0, 0), SIZE, (num, 2)), chance.normal(0, 12, (num, 2))
    class_id = chance.integers(0, 3, num)
    away_until = np.zeros(num)
    ids = np.arange(1, num + 1)
    time_ns, found = 5_000_000_000, []
    for number in range(count):
        time_ns += int(chance.choice([33_000_000, 100_000_000, 100_000_001, 250_000_000, 0]))
        if restarts and chance.random() < 0.02:
            time_ns = max(1, time_ns - int(chance.integers(1, 5)) * 1_000_000_000)
        turn = chance.random(num) < 0.1
        step[turn] = chance.normal(0, 12, (int(turn.sum()), 2)) * chance.choice([0.05, 1])
        place = np.clip(place + step, -20, np.array(SIZE) + 20)
        jumps = chance.random(num) < 0.02
        away_until[jumps] = number + chance.integers(1, 60, int(jumps.sum()))
        anew = chance.random(num) < 0.01
        ids[anew] = ids.max() + 1 + np.arange(int(anew.sum()))
        here = np.flatnonzero(away_until <= number)
        if flickers:
            flips = chance.random(num) < 0.3
            class_id = np.where(flips, chance.integers(0, 2, num), class_id)
        low = place[here] + chance.normal(0, 1.5, (len(here), 2)) - (15, 50)
        box = near(np.concatenate([low, low + np.array([30, 50])], 1).astype(np.float32), steps.px)
        speed = near(step[here].astype(np.float32) * 10, steps.px_s)
        order = np.argsort(ids[here])
        score = np.full(len(here), 0.9, np.float32)
        tracks = Tracks(
            ids[here], box, score, class_id[here].astype(np.int32), score, speed, np.arange(len(here), dtype=np.int32)
        )
        found.append((time_ns, tracks[order]))
    return found


def live(
    frames: list[tuple[int, Tracks]], settings: AnalyticsSettings, away: frozenset[int] = frozenset()
) -> list[tuple[Event, ...]]:
    """What ``StreamAnalytics`` says of each frame; of those of a camera that is away it sees nothing."""
    captured = iter(range(10**9))
    now = [0]

    def clock(_: int) -> datetime:
        return utc(BEGUN + captured_at(now[0]))

    analytics = StreamAnalytics(settings, stream="door", classes=CLASSES, width=SIZE[0], height=SIZE[1], clock=clock)
    events = []
    for time_ns, tracks in frames:
        now[0] = number = next(captured)
        events.append(() if number in away else analytics.update(tracks, time_ns))
    return events


def captured_at(number: int) -> int:
    return number * 100_000_000


def stored(
    frames: list[tuple[int, Tracks]],
    events: list[tuple[Event, ...]],
    sizes: list[int],
    labels: dict[int, Any],
    away: frozenset[int] = frozenset(),
) -> list[Block]:
    """The frames as blocks of these many frames, written and read again."""
    steps, blocks, at, turn, known = Steps.of(*SIZE), [], 0, 0, {}
    while at < len(frames):
        size = sizes[turn % len(sizes)]
        part = [
            FrameFacts(
                *(time_ns, captured_at(at + number), 0, at + number, captured_at(at + number), (360, 640, 3)),
                Detections(tracks.xyxy, tracks.score, tracks.class_id),
                tracks,
                events[at + number],
                labels if (at + number) % 7 else {},
                is_away=at + number in away,
            )
            for number, (time_ns, tracks) in enumerate(frames[at : at + size])
        ]
        block = block_of(part, [], known, (), ((), steps, BEGUN))
        blocks.append(decode(encode(block, steps), steps))
        at, turn = at + size, turn + 1
    return blocks


@given(
    st.integers(0, 10**6),
    st.integers(1, 260),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
    st.sampled_from([1, 50, 6000]),
    st.booleans(),
    st.booleans(),
)
@example(1, 260, [90], 6000, True, True)
@settings(max_examples=examples(50), deadline=None)
def test_columns_say_what_the_live_rules_said(
    seed: int, count: int, sizes: list[int], at_once: int, flickers: bool, restarts: bool
) -> None:
    from edge.trackstore import evaluate as module

    settings_ = rules(lost_s=float(1 + seed % 3), forget_s=float(3 + seed % 5))
    frames = walks(seed, count, flickers=flickers, restarts=restarts)
    events = live(frames, settings_)
    blocks = [(head(), block) for block in stored(frames, events, sizes, {})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_FRAMES", at_once)
        found = list(evaluate(blocks, settings_))
    told = list(reported(blocks))
    assert [one.key for one in told] == [one.key for one in found]
    assert [one.ordinal for one in told] == [one.ordinal for one in found]
    assert [one.event for one in found] == [event for told_ in events for event in told_]


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 259), st.integers(1, 60)), max_size=4),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
    st.sampled_from([1, 50, 6000]),
    st.booleans(),
    st.booleans(),
)
@example(1, [(0, 260)], [90], 6000, True, False)
@settings(max_examples=examples(50), deadline=None)
def test_of_a_camera_that_was_turned_away_columns_say_what_the_live_rules_said(
    seed: int, turns: list[tuple[int, int]], sizes: list[int], at_once: int, restarts: bool, is_packed: bool
) -> None:
    from edge.trackstore import evaluate as module

    away = frozenset(number for start, count in turns for number in range(start, start + count))
    frames = walks(seed, 260, flickers=True, restarts=restarts)
    events = live(frames, rules(), away)
    blocks = stored(frames, events, sizes, {}, away)
    if is_packed:
        blocks = [block for _, block in joined((Span(*one.captured_ns[[0, -1]].tolist()), one) for one in blocks)]
    assert np.concatenate([is_away(block) for block in blocks]).tolist() == [number in away for number in range(260)]
    pieces = [piece for block in blocks for piece in (within(block, 0, CUT), within(block, CUT, 1 << 62))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_FRAMES", at_once)
        found = list(evaluate([(head(), block) for block in pieces], rules()))
    assert [one.key for one in found] == [one.key for one in reported([(head(), block) for block in blocks])]
    assert [one.event for one in found] == [event for told in events for event in told]


# some frame of the films above
CUT = BEGUN + captured_at(130)


def test_labels_come_with_the_events() -> None:
    frames = walks(3, 200, flickers=False, restarts=False)
    labels = {track_id: (Label("red", 0.71234),) for track_id in range(1, 20)}
    from edge.pipeline.analysis import labelled

    plain = live(frames, rules())
    events = [labelled(told, labels if number % 7 else {}) for number, told in enumerate(plain)]
    blocks = [(head(), block) for block in stored(frames, events, [40], labels)]
    found, told = list(evaluate(blocks, rules())), list(reported(blocks))
    assert [one.key for one in found] == [one.key for one in told]
    assert any("labels" in one.event.data for one in found)


def test_an_anchor_that_was_not_kept_is_refused() -> None:
    frames = walks(3, 5, flickers=False, restarts=False)
    blocks = [(head(), block) for block in stored(frames, [()] * 5, [5], {})]
    line = {"name": "a", "points_px": [[320, 20], [320, 340]], "anchor": "keypoint:nose"}
    with pytest.raises(ConfigError, match="keypoint:nose"):
        list(evaluate(blocks, AnalyticsSettings.model_validate({"lines": [line]})))

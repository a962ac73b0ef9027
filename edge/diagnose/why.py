"""Why there was no event at a moment, and why there was one: from the stored frames, candidates, tracks and drops.

What comes before the rules (no frame, a frozen picture, drops, no candidate) is read from the store. For the rules
themselves the stored tracks are tried again with one setting after the other made milder: the first that lets an event
through is the cause, and what it would have let through besides on that day is counted the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.config.schema import StreamSettings
from edge.diagnose.explain import CAUSES
from edge.diagnose.why_loud import why_loud
from edge.diagnose.why_scene import NS_PER_S, Answer, Question, Scene, wall
from edge.diagnose.why_tries import Try, rule_tries, score_tries, with_part
from edge.errors import ConfigError
from edge.trackstore.block import is_away
from edge.trackstore.evaluate import Evaluator, Found, evaluate, reported, within
from edge.trackstore.retrack import retracked
from edge.trackstore.times import iso

if TYPE_CHECKING:
    from edge.trackers.settings import TrackerSettings
    from edge.trackstore.block import Block
    from edge.trackstore.parts import Head
    from edge.trackstore.read import Reader

# from this share of dropped frames on, the drops are the cause where nothing else is
MANY_DROPS = 0.3
# rules are tried from so long before the moment on: whoever loiters then came earlier
BEFORE_S, AFTER_S = 120, 10


def why(reader: Reader, asked: Question) -> Answer:
    """The cause of an event that did not happen, or of one that did.

    Raises:
        DataError: nothing is kept of this stream.
    """
    half_ns = round(asked.within_s * NS_PER_S)
    span = asked.at_ns - half_ns, asked.at_ns + half_ns
    # what was said stands next to the moment
    near = list(reader.blocks(asked.stream, span[0], span[1] + NS_PER_S, with_candidates=False))
    if asked.kind == "loud":
        return _loud(Scene(asked, near, span), reader)
    said = _said(Scene(asked, near, span))
    if said is not None:
        return said
    since_ns, until_ns = asked.at_ns - BEFORE_S * NS_PER_S, asked.at_ns + AFTER_S * NS_PER_S
    stored = reader.blocks(asked.stream, since_ns, until_ns)
    scene = Scene(asked, [(head, within(block, since_ns, until_ns)) for head, block in stored], span)
    steps = (
        lambda _: _not_kept(scene, reader),
        _no_frame,
        _cannot,
        _away,
        _rules,
        _tracker,
        _picture,
        _masked,
        _dropped,
    )
    for step in steps:
        answer = step(scene)
        if answer is not None:
            return answer
    return _nothing(scene)


def others(reader: Reader, answer: Answer, asked: Question) -> list[Found]:
    """The other events that the answer's setting would have let through on that day, or in the hour around it.

    The hour where the stored candidates must be followed again: a day of them would take minutes.
    """
    from edge.trackstore.compare import compare

    if answer.changed is None:
        return []
    day_ns = 86_400 * NS_PER_S
    start_ns = asked.at_ns // day_ns * day_ns
    half_ns = 1800 * NS_PER_S
    is_quick = answer.tracker is None
    span = (start_ns, start_ns + day_ns) if is_quick else (asked.at_ns - half_ns, asked.at_ns + half_ns)
    blocks: Iterable[tuple[Head, Block]] = reader.blocks(
        asked.stream, *span, with_candidates=answer.tracker is not None
    )
    if answer.tracker is not None:
        blocks = retracked(blocks, answer.tracker)
    then = reported(reader.blocks(asked.stream, *span, with_candidates=False))
    found = compare(then, evaluate(blocks, answer.changed.analytics))
    wanted = {part_and_kind(one) for one in answer.events}
    known = {one.key for one in answer.events}
    return [one for one in found.new if part_and_kind(one) in wanted and one.key not in known]


def answer_as_dict(answer: Answer, found: Sequence[Found]) -> dict[str, Any]:
    """The answer for programs; ``found``: what ``others`` gave."""
    from edge.trackstore.compare import as_dict

    return {
        "cause": answer.cause,
        "sentence": answer.sentence,
        "setting": answer.setting,
        "value": answer.value,
        "also": len(found),
        "also_within": "day" if answer.tracker is None else "hour",
        "facts": dict(answer.facts),
        "events": [as_dict(one) for one in answer.events],
    }


def part_and_kind(one: Found) -> tuple[str, str]:
    """What an event is about, and what it says."""
    return one.part, one.event.kind


def _said(scene: Scene) -> Answer | None:
    found = tuple(one for one in reported(scene.seen()) if scene.asked.fits(one))
    if not found:
        return None
    one = min(found, key=lambda event: abs(event.wall_ns - scene.asked.at_ns))
    assert scene.settings is not None
    rule = _rule_of(scene.settings, one)
    text = (
        f"{scene.asked.stream}: {one.event.kind} was said at {iso(one.wall_ns)}, in frame {one.seq} "
        f"of epoch {one.epoch}, of {one.event.data.get('class', 'nobody')} {one.event.track_id or ''}".rstrip()
        + f", by {rule}"
    )
    lost = [f"{name}: {reason}" for name in _faults(scene) if (reason := scene.fault(name))]
    facts = {"epoch": one.epoch, "seq": one.seq, "track_id": one.event.track_id, "rule": rule, **dict(one.event.data)}
    if lost:
        return Answer("said_but_lost", f"{text}; but {'; '.join(lost)}", facts=facts, events=found)
    if scene.settings.record is None:
        text += "; there is no clip: the stream is not recorded"
        return Answer("said", text, f"streams.{scene.asked.stream}.record", facts=facts, events=found)
    return Answer("said", text, facts=facts, events=found)


def _loud(scene: Scene, reader: Reader) -> Answer:
    """Of sound only levels are kept."""
    if (answer := _not_kept(scene, reader)) is not None:
        return answer
    found = why_loud(None if scene.settings is None else scene.settings.loud, scene.heard)
    if found.cause == "no_sound" and (answer := _no_frame(scene)) is not None:
        return answer
    setting = f"streams.{scene.asked.stream}.{found.key}" if found.key else ""
    facts = max(scene.heard, key=lambda second: float(second["dbfs"]), default={})
    return Answer(found.cause, f"{scene.name}: {found.text}", setting, found.value, facts=dict(facts))


def _faults(scene: Scene) -> list[str]:
    names = {name for stand in scene.stands for name in stand.get("faults", {})}
    return sorted(names - {"analytics"})


def _rule_of(settings: StreamSettings, one: Found) -> str:
    watched = settings.analytics
    name = one.part
    for word, parts in (("line", watched.lines), ("zone", watched.zones)):
        for part in parts:
            if part.name == name and word in one.event.data:
                return f"{word} '{name}' (anchor {part.anchor}, settle_s {part.settle_s:g})"
    return f"'{name}'"


def _not_kept(scene: Scene, reader: Reader) -> Answer | None:
    if scene.stored:
        lost = scene.num_lost
        if lost and not scene.has_frame:
            return Answer("store_lost", f"{scene.name}: {lost} frames could not be kept: the disk was full or too slow")
        return None
    span = reader.span(scene.asked.stream)
    if span is None or scene.asked.at_ns < span[0]:
        text = f"{scene.name}: older than what is kept" + (f", which begins at {iso(span[0])}" if span else "")
        return Answer("store_retention", text, "track_store.max_days")
    return Answer("not_running", f"{scene.name}: the program did not run: nothing is kept of these minutes")


STATES: Mapping[str, str] = {
    "backing_off": "the camera was offline",
    "failed": "the source had failed",
    "connecting": "the camera was being connected to",
    "ended": "the source had ended",
}


def _no_frame(scene: Scene) -> Answer | None:
    """There was no frame at the moment, or a hole of a second next to it."""
    if scene.has_frame:
        return None
    stands = [stand for stand in scene.stands if stand.get("state") in STATES]
    for stand in stands:
        state = str(stand["state"])
        reason = f": {stand['reason']}" if stand.get("reason") else ""
        cause = {"backing_off": _offline(str(stand.get("reason", "")))}.get(state, f"source_{state}")
        return Answer(cause, f"{scene.name}: no frame came: {STATES[state]}{reason}", facts=dict(stand))
    if drop := _worst_drop(scene):
        return _drop_answer(scene, drop, "no frame was analysed")
    if scene.counts["captured"] > scene.counts["inferred"] and scene.counts["captured"]:
        return Answer("inference_stuck", f"{scene.name}: frames came, and inference took none")
    if not scene.stands:
        return Answer("not_running", f"{scene.name}: the program did not run: nothing is kept of this moment")
    return Answer(
        "camera_silent", f"{scene.name}: the camera was connected and gave no frame", facts=dict(scene.stands[-1])
    )


def _offline(reason: str) -> str:
    words = {
        "camera_refused": ("refused",),
        "camera_login": ("401", "403", "nauthor", "password", "credential"),
        "camera_timeout": ("timed out", "timeout", "no answer", "silent"),
        "camera_not_found": ("404", "not found", "resolve", "unknown host", "No such"),
    }
    return next((cause for cause, parts in words.items() if any(part in reason for part in parts)), "camera_offline")


DROP_SETTINGS: Mapping[str, str] = {
    "drop_max_fps": "max_fps",
    "drop_no_motion": "motion_gate",
    "drop_too_old": "max_age_ms",
    "drop_governor": "",
}


def _worst_drop(scene: Scene) -> str:
    drops = {name: count for name, count in scene.counts.items() if name.startswith("drop_")}
    return max(drops, key=lambda name: drops[name], default="")


def _drop_answer(scene: Scene, drop: str, what: str) -> Answer:
    key = DROP_SETTINGS.get(drop, "")
    total = max(scene.counts["captured"], scene.counts[drop])
    text = f"{scene.name}: {what}: {scene.counts[drop]} of {total} frames were dropped: {CAUSES[drop]}"
    setting = f"streams.{scene.asked.stream}.{key}" if key else ("governor" if drop == "drop_governor" else "")
    return Answer(drop, text, setting, facts=dict(scene.counts))


def _cannot(scene: Scene) -> Answer | None:
    """What keeps lines and zones of this stream from ever saying anything."""
    settings, asked = scene.settings, scene.asked
    assert settings is not None
    watched = [*settings.analytics.lines, *settings.analytics.zones]
    key = f"streams.{asked.stream}"
    if fault := scene.fault("analytics"):
        return Answer("analytics_fault", f"{scene.name}: nothing was counted: {fault}", f"{key}.analytics")
    if settings.track.method == "off":
        return Answer(
            "tracker_off", f"{scene.name}: objects were not followed: track.method = off", f"{key}.track.method"
        )
    if not watched:
        return Answer("no_rule", f"{scene.name}: the stream had no lines and zones then", f"{key}.analytics")
    if asked.part and asked.part not in {part.name for part in watched}:
        names = ", ".join(part.name for part in watched)
        return Answer(
            "no_such_rule", f"{scene.name}: there was no '{asked.part}' then, only: {names}", f"{key}.analytics"
        )
    return None


def _away(scene: Scene) -> Answer | None:
    """The camera was turned away at the moment, or in all of the time that is asked about."""
    near = [
        (abs(int(wall_ns) - scene.asked.at_ns), bool(away), int(wall_ns))
        for _, block in scene.with_frames
        for wall_ns, away in zip(wall(block), is_away(block), strict=True)
        if scene.span[0] <= wall_ns <= scene.span[1]
    ]
    if not any(away for _, away, _ in near) or not min(near)[1]:
        return None
    times = [wall_ns for _, away, wall_ns in near if away]
    text = f"{scene.name}: the camera was turned away from its home; lines and zones rested"
    facts = {"frames": len(near), "away": len(times), "since": iso(min(times)), "until": iso(max(times))}
    return Answer("camera_away", text, f"streams.{scene.asked.stream}.ptz", facts=facts)


def _rules(scene: Scene) -> Answer | None:
    """Try the rules again, each time with one setting milder."""
    settings = scene.settings
    assert settings is not None and scene.head is not None
    for one in rule_tries(
        settings.analytics, scene.asked.part, scene.asked.kind, (scene.head.width, scene.head.height)
    ):
        try:
            found = tuple(
                e for e in evaluate(scene.seen(), one.analytics) if scene.asked.fits(e) and e.part == one.part
            )
        except ConfigError:
            continue
        if found:
            changed = settings.model_copy(update={"analytics": one.analytics})
            return _tried(scene, one, found, changed)
    return None


def _tried(scene: Scene, one: Try, found: tuple[Found, ...], changed: StreamSettings) -> Answer:
    event = min(found, key=lambda e: abs(e.wall_ns - scene.asked.at_ns))
    what = f"{event.event.data.get('class', 'an object')} {event.event.track_id or ''}".rstrip()
    text = (
        f"{scene.name}: {what} {one.told}; {one.setting_of(scene.asked.stream)} = {one.shown} "
        f"would have let {event.event.kind} through at {iso(event.wall_ns)}"
    )
    facts = {"track_id": event.event.track_id, "seq": event.seq, "epoch": event.epoch, **dict(event.event.data)}
    return Answer(one.cause, text, one.setting_of(scene.asked.stream), one.value, changed, None, facts, found)


def _tracker(scene: Scene) -> Answer | None:
    """Follow the candidates again with lower thresholds, where the tracker was ours."""
    settings, head = scene.settings, scene.head
    assert settings is not None and head is not None
    if settings.track.method != "edge" or not head.thresholds:
        return None
    analytics = _only(settings, scene.asked.part)
    for cause, tracker, score in score_tries(head.thresholds):
        found = tuple(e for e in evaluate(retracked(scene.seen(), tracker), analytics) if scene.asked.fits(e))
        if not found:
            continue
        best, size = _best_of(scene, tracker, found[0])
        facts = {"best_score": best, "size_px": size, "track_id": found[0].event.track_id}
        what = f"{found[0].event.data.get('class', 'an object')}"
        if cause == "unconfirmed":
            text = f"{scene.name}: {what} was seen once only, and a track needs two in a row"
            return Answer(cause, text, facts=facts, events=found)
        is_small = size[0] * size[1] < (SMALL_SHARE * max(head.width, head.height)) ** 2
        key = f"streams.{scene.asked.stream}.{'tiles' if is_small else 'score'}"
        text = (
            f"{scene.name}: {what} scored {best:.2f} at most, below {head.thresholds['high']:g}"
            + (f", being {size[0]:.0f}x{size[1]:.0f} px small: tiles show it larger" if is_small else "")
            + f"; streams.{scene.asked.stream}.score = {score:g} would have let {found[0].event.kind} through"
        )
        changed = settings.model_copy(update={"score": score})
        return Answer("too_small" if is_small else "score", text, key, score, changed, tracker, facts, found)
    return None


# of the picture's longer side: COCO calls an object small whose area is below 32 x 32 pixels of 640
SMALL_SHARE = 0.05


def _only(settings: StreamSettings, part: str) -> Any:
    return with_part(settings.analytics, part) if part else settings.analytics


def _best_of(scene: Scene, tracker: TrackerSettings, one: Found) -> tuple[float, tuple[float, float]]:
    """The best score of the track that would have been, and its size in pixels."""
    score, size = 0.0, (0.0, 0.0)
    for _, block in retracked(scene.seen(), tracker):
        rows = block.sightings[block.sightings.track_id == one.event.track_id]
        if len(rows):
            score = max(score, float(rows.score.max()))
            box = rows.xyxy[int(rows.score.argmax())]
            size = float(box[2] - box[0]), float(box[3] - box[1])
    return score, size


PICTURE: Mapping[str, str] = {
    "frozen": "the picture was frozen",
    "dark": "the picture was dark",
    "overexposed": "the picture was overexposed",
    "covered": "the lens was covered",
    "defocused": "the picture was out of focus",
}


def _picture(scene: Scene) -> Answer | None:
    for stand in scene.stands:
        for name in stand.get("health", ()):
            text = f"{scene.name}: frames came, but {PICTURE.get(name, name)}"
            return Answer(f"picture_{name}", text, facts=dict(stand))
    return None


def _masked(scene: Scene) -> Answer | None:
    """Whether a privacy mask or the cut of the picture hides where the rule is."""
    settings, head = scene.settings, scene.head
    assert settings is not None and head is not None
    points = [
        (x / head.width, y / head.height)
        for part in (*settings.analytics.lines, *settings.analytics.zones)
        if scene.asked.part in ("", part.name)
        for x, y in part.pixels(head.width, head.height)
    ]
    centre = np.mean(np.array(points), 0)
    if settings.roi is None and not settings.rotate:
        for mask in settings.masks:
            if _is_inside(centre, np.array(mask)):
                text = f"{scene.name}: a privacy mask covers the middle of what is watched"
                return Answer("masked", text, f"streams.{scene.asked.stream}.masks")
    return None


def _is_inside(point: Any, corners: Any) -> bool:
    x, y = point
    following = np.roll(corners, -1, axis=0)
    spans = (corners[:, 1] > y) != (following[:, 1] > y)
    rise = np.where(following[:, 1] == corners[:, 1], 1, following[:, 1] - corners[:, 1])
    at_x = corners[:, 0] + (y - corners[:, 1]) / rise * (following[:, 0] - corners[:, 0])
    return bool(np.count_nonzero(spans & (x < at_x)) % 2)


def _dropped(scene: Scene) -> Answer | None:
    drop = _worst_drop(scene)
    if drop and scene.counts[drop] >= MANY_DROPS * max(1, scene.counts["captured"]):
        return _drop_answer(scene, drop, f"only {len(scene.frame_ns)} frames were analysed")
    return None


def _nothing(scene: Scene) -> Answer:
    """Frames came and rules were on: what was there, and how near it came."""
    tracks, best = _near(scene)
    if tracks:
        track_id, distance, part = min(tracks, key=lambda one: one[1])
        text = f"{scene.name}: track {track_id} came within {distance:.0f} px of '{part}', and never to its other side"
        return Answer(
            "not_reached", text, facts={"track_id": track_id, "distance_px": round(distance, 1), "part": part}
        )
    if best is None:
        return Answer(
            "nothing_there", f"{scene.name}: {len(scene.frame_ns)} frames, and the model proposed nothing in them"
        )
    score, name, size = best
    shape = f"{size[0]:.0f}x{size[1]:.0f} px, score {score:.2f}"
    text = f"{scene.name}: nothing was followed; the best candidate was a {name} of {shape}"
    return Answer("no_track", text, facts={"best_score": score, "class": name, "size_px": size})


def _near(scene: Scene) -> tuple[list[tuple[int, float, str]], tuple[float, str, tuple[float, float]] | None]:
    """Track, nearest distance and part; and the best candidate: score, class, size."""
    settings, head = scene.settings, scene.head
    assert settings is not None and head is not None
    best: tuple[float, str, tuple[float, float]] | None = None
    tracks: dict[int, tuple[float, str]] = {}
    evaluator = Evaluator(_only(settings, scene.asked.part), head)
    for _, block in scene.seen():
        is_inside = (wall(block) >= scene.span[0]) & (wall(block) <= scene.span[1])
        others = block.candidates[is_inside[block.candidates.frame]]
        if len(others) and (best is None or others.score.max() > best[0]):
            row = int(others.score.argmax())
            box, class_id = others.xyxy[row], int(others.class_id[row])
            name = head.classes[class_id] if class_id < len(head.classes) else str(class_id)
            best = float(others.score[row]), name, (float(box[2] - box[0]), float(box[3] - box[1]))
        seen = block.sightings[is_inside[block.sightings.frame]]
        for track_id, distance, part in _distances(evaluator, seen):
            if distance < tracks.get(track_id, (np.inf, ""))[0]:
                tracks[track_id] = distance, part
    return [(track_id, *found) for track_id, found in tracks.items()], best


def _distances(evaluator: Evaluator, seen: Any) -> Iterator[tuple[int, float, str]]:
    from edge.types import Tracks

    if len(seen) == 0:
        return
    order, nothing = np.zeros(len(seen), np.int32), np.zeros(len(seen), np.float32)
    tracks = Tracks(seen.track_id, seen.xyxy, seen.score, seen.class_id, nothing, seen.velocity, order)
    lines, zones = evaluator.analytics.lines, evaluator.analytics.zones
    for names, of in ((lines.names, lines), (zones.names, zones)):
        if names:
            distance = np.abs(of.distance(of.anchors.of(tracks)))
            for column, name in enumerate(names):
                yield from zip(seen.track_id.tolist(), distance[:, column].tolist(), [name] * len(seen), strict=True)

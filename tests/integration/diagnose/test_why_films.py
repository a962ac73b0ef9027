"""``edge why`` on real footage, and of every event of a long film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from integration.diagnose.films import Fault, Walk, film, real, synthetic
from integration.diagnose.test_why import FAULTS, NOBODY, answer_of

from edge.diagnose.why import why
from edge.diagnose.why_scene import Question
from edge.trackstore.evaluate import reported


@pytest.fixture(scope="module")
def filmed(shared_data: Path) -> Walk:
    return real(shared_data)


@pytest.mark.parametrize("name", FAULTS)
def test_the_cause_is_named_on_a_real_film(name: str, filmed: Walk, tmp_path: Path) -> None:
    cause, fault = FAULTS[name]
    _, _, answer = answer_of(tmp_path, filmed, fault)
    assert answer.cause == cause, answer.sentence


def test_of_200_events_that_were_said_the_frame_and_the_rule_are_given(tmp_path: Path) -> None:
    made = synthetic()
    walks = [one for _ in range(26) for one in (*made.found, *[NOBODY] * 40)]
    zones = [
        {"name": f"z{x}", "points_px": [[x, 10], [x + 90, 10], [x + 90, 350], [x, 350]]} for x in (120, 230, 340, 450)
    ]
    reader = film(tmp_path, replace(made, found=walks), Fault(settings={"analytics": {"zones": zones}}))
    events = list(reported(reader.blocks("door")))
    assert len(events) >= 200
    for one in events[:200]:
        answer = why(reader, Question("door", one.wall_ns, 0.05, one.part, one.event.kind))
        assert answer.cause == "said"
        assert (answer.facts["epoch"], answer.facts["seq"]) == (one.epoch, one.seq)
        assert answer.facts["rule"].startswith(f"zone '{one.part}'")

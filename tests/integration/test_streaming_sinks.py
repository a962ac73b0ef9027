"""The contract of sinks holds for those that stream through a process of their own."""

from __future__ import annotations

import pytest
from contract.test_sink_contract import (
    SINKS,
    Kind,
    sink,
    test_it_closes_without_a_result,
    test_it_does_not_hide_what_the_drawing_raises,
    test_it_draws_a_picture_for_whoever_sees_it_and_else_none,
    test_it_has_a_name_for_people,
    test_it_takes_every_kind_of_prediction,
    test_it_takes_many_results_and_closes_twice,
)

__all__ = [
    "sink",
    "test_it_closes_without_a_result",
    "test_it_does_not_hide_what_the_drawing_raises",
    "test_it_draws_a_picture_for_whoever_sees_it_and_else_none",
    "test_it_has_a_name_for_people",
    "test_it_takes_every_kind_of_prediction",
    "test_it_takes_many_results_and_closes_twice",
]
STREAMING = {name: kind for name, kind in SINKS.items() if kind.is_process}


@pytest.fixture(params=list(STREAMING.values()), ids=list(STREAMING))
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found

"""Sessions end when they are idle, old, ended, or too many."""

from __future__ import annotations

from edge.users.sessions import MAX_OF_USER, MAX_SESSIONS, Sessions, key_of


def made(now_s: list[float], ended: list[str]) -> Sessions:
    return Sessions(100, 1000, clock_s=lambda: now_s[0], on_end=ended.append)


def test_one_that_is_idle_ends_and_one_that_is_used_does_not() -> None:
    now_s, ended = [0.0], list[str]()
    sessions = made(now_s, ended)
    sessions.begin("a", "anna", "g", "10.0.0.9")
    sessions.begin("b", "anna", "g", "10.0.0.9")
    now_s[0] = 90
    assert sessions.get("a") is not None and sessions.get("b", is_used=False) is not None
    now_s[0] = 120
    assert sessions.get("a") is not None and sessions.get("b") is None
    assert ended == ["b"]


def test_one_that_is_always_used_ends_too() -> None:
    now_s, ended = [0.0], list[str]()
    sessions = made(now_s, ended)
    sessions.begin("a", "anna", "g", "")
    while sessions.get("a") is not None:
        now_s[0] += 50
    assert 1000 < now_s[0] <= 1050 and ended == ["a"]


def test_there_are_only_so_many_and_those_unused_for_longest_go() -> None:
    now_s, ended = [0.0], list[str]()
    sessions = made(now_s, ended)
    for number in range(MAX_OF_USER + 5):
        now_s[0] += 0.1
        sessions.begin(f"a{number}", "anna", "g", "")
    assert len(sessions.all()) == MAX_OF_USER and ended == [f"a{number}" for number in range(5)]
    for number in range(2 * MAX_SESSIONS):
        sessions.begin(f"b{number}", f"user{number}", "g", "")
    assert len(sessions.all()) == MAX_SESSIONS


def test_a_key_is_a_hash() -> None:
    assert key_of("a" * 64) != "a" * 64 and len(key_of("a")) == 64

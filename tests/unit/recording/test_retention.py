"""The files that were finished first go, by age and by size, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.recording.retention import Keep, Kept, files_in, remove, too_many

FILES = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), max_size=12).map(
    lambda facts: [Kept(Path(f"{number:02d}.mp4"), time_ns, size) for number, (time_ns, size) in enumerate(facts)]
)


@given(
    files=FILES,
    max_age=st.none() | st.integers(0, 100),
    max_bytes=st.none() | st.integers(0, 300),
    extra=st.integers(0, 40),
)
def test_what_is_left_fits_and_nothing_goes_without_need(
    files: list[Kept], max_age: int | None, max_bytes: int | None, extra: int
) -> None:
    now = 100
    gone = too_many(files, Keep(max_age, max_bytes), now, extra)
    left = [file for file in files if file not in gone]
    total = sum(file.num_bytes for file in left) + extra
    assert max_bytes is None or total <= max_bytes or not left
    # what was finished first goes first, whatever its time says
    assert gone == files[: len(gone)]
    # and is as young as the youngest before it
    times = [max(file.time_ns for file in files[: place + 1]) for place in range(len(files))]
    assert max_age is None or all(now - time_ns <= max_age for time_ns in times[len(gone) :])
    if gone:
        is_old = max_age is not None and now - times[len(gone) - 1] > max_age
        assert is_old or (max_bytes is not None and total + gone[-1].num_bytes > max_bytes)


@pytest.mark.parametrize(
    ("times", "num_gone"),
    [
        ([10, 20, 95], 2),
        # taken from a clock that was far behind
        ([95, 10, 96], 0),
        # taken from a clock that was far ahead
        ([10, 900, 95], 2),
        ([900, 95, 96], 0),
    ],
)
def test_a_time_that_cannot_be_is_not_believed(times: list[int], num_gone: int) -> None:
    files = [Kept(Path(f"{number}.mp4"), time_ns, 1) for number, time_ns in enumerate(times)]
    assert too_many(files, Keep(max_age_ns=50), 100) == files[:num_gone]


def test_no_limit_keeps_all() -> None:
    assert too_many([Kept(Path("a"), 0, 10**12)], Keep(), 10**18) == []


def test_removing_reports_what_is_gone_also_if_somebody_else_did_it(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"12")
    (tmp_path / ".b.mp4").write_bytes(b"12")
    (tmp_path / "c.txt").write_bytes(b"12")
    (found,) = files_in(tmp_path, ".mp4")
    assert (found.path.name, found.num_bytes) == ("a.mp4", 2)
    missing = Kept(tmp_path / "gone.mp4", 0, 1)
    assert remove([found, missing]) == [found, missing]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.mp4", "c.txt"]
    assert files_in(tmp_path / "nowhere", ".mp4") == []

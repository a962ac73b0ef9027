"""The oldest files go, by age and by size, and nothing else."""

from __future__ import annotations

from pathlib import Path

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
    assert max_age is None or all(now - file.time_ns <= max_age for file in left)
    if gone:
        newest = gone[-1]
        assert all((file.time_ns, file.path.name) > (newest.time_ns, newest.path.name) for file in left)
        is_old = max_age is not None and now - newest.time_ns > max_age
        assert is_old or (max_bytes is not None and total + newest.num_bytes > max_bytes)


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

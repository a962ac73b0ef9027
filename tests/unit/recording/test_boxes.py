"""What was found in a recorded file stands next to it: each result around its moment, and nothing that breaks a cue."""

from __future__ import annotations

from pathlib import Path

from edge.recording.boxes import MAX_BYTES, BoxNotes, webvtt

S = 10**9
SOMETHING = '{"width":4,"height":4,"objects":[{"class":"a --> b"}]}'
NOTHING = '{"width":4,"height":4,"objects":[]}'


def test_each_result_is_shown_half_way_to_its_neighbours() -> None:
    text = webvtt([(S, SOMETHING), (S + S // 10, SOMETHING), (S + S // 5, NOTHING)], S - S // 20, 3 * S)
    assert [line for line in text.splitlines() if "-->" in line] == [
        "00:00:00.000 --> 00:00:00.100",
        "00:00:00.100 --> 00:00:00.200",
    ]
    assert "a --\\u003e b" in text


def test_a_result_that_nothing_follows_is_shown_for_a_moment_only() -> None:
    text = webvtt([(S, SOMETHING), (9 * S, SOMETHING)], 0, 9 * S)
    assert [line for line in text.splitlines() if "-->" in line] == [
        "00:00:00.950 --> 00:00:01.250",
        "00:00:08.750 --> 00:00:09.050",
    ]


def test_results_outside_of_the_file_and_files_without_any_are_left_out(tmp_path: Path) -> None:
    assert webvtt([(S, SOMETHING), (9 * S, SOMETHING)], 3 * S, 5 * S) == ""
    assert webvtt([], 0, S) == ""
    notes = BoxNotes()
    notes.end_file(tmp_path / "a.mp4", 0, S)
    notes.write()
    assert list(tmp_path.iterdir()) == []


def test_notes_are_written_once_a_later_result_is_there(tmp_path: Path) -> None:
    notes = BoxNotes()
    notes.add(S, SOMETHING)
    notes.end_file(tmp_path / "a.mp4", 0, 2 * S)
    notes.add(2 * S, SOMETHING)
    assert list(tmp_path.iterdir()) == []
    notes.add(3 * S, NOTHING)
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT\n\n00:00:00.950")


def test_notes_take_bounded_memory_and_a_disk_that_fails_costs_them_alone(tmp_path: Path) -> None:
    notes = BoxNotes()
    for number in range(10):
        notes.add(number, "x" * (MAX_BYTES // 4))
    assert sum(len(text) for _, text in notes._notes) <= MAX_BYTES
    notes.end_file(tmp_path / "gone" / "a.mp4", 0, 10 * S)
    notes.write()
    assert notes.num_lost == 1


def test_notes_of_files_that_are_written_are_gone_and_the_next_file_has_its_own(tmp_path: Path) -> None:
    notes = BoxNotes()
    for number in range(100):
        for tenth in range(10):
            notes.add(number * S + tenth * S // 10, SOMETHING)
        notes.end_file(tmp_path / f"{number:03}.mp4", number * S, number * S + 9 * S // 10)
    assert len(notes._notes) < 25
    notes.write()
    cues = [path.read_text().count(" --> ") for path in sorted(tmp_path.glob("*.vtt"))]
    assert len(cues) == 100
    assert min(cues) >= 10

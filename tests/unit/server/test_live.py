"""The board: one drawing per frame, newest wins, misses are counted, viewers with a rate of their own."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from edge.pictures.planes import PlaneForm, Planes
from edge.server.board import LiveBoard
from edge.server.published import DRAWN, WIDTHS, Plain, divisor_for, width_step
from edge.server.push import format_seen, parse_seen
from edge.types import UInt8


class Camera:
    def __init__(self, board: LiveBoard) -> None:
        self.board = board
        self.num_drawn = 0

    def picture(self) -> UInt8:
        self.num_drawn += 1
        return np.full((16, 16, 3), 90, np.uint8)

    def publish(self, times: int = 1, plain: Plain | None = None) -> None:
        for _ in range(times):
            self.board.publish("door", b"{}", self.picture, plain=plain)


@pytest.fixture
def now_ns() -> list[int]:
    return [1_000_000_000]


@pytest.fixture
def board(now_ns: list[int]) -> LiveBoard:
    board = LiveBoard(clock_ns=lambda: now_ns[0])
    board.add_stream("door", {"width": 16})
    return board


def test_without_viewers_nothing_is_drawn_but_results_are_kept(board: LiveBoard) -> None:
    camera = Camera(board)
    results = board.watch("door", has_pictures=False)
    camera.publish(3)
    assert not board.wants_picture("door")
    assert camera.num_drawn == 0
    shown = board.take(results)
    assert shown is not None
    assert (shown.number, shown.jpeg) == (3, None)


def test_many_viewers_share_one_drawing(board: LiveBoard) -> None:
    camera = Camera(board)
    viewers = [board.watch("door", has_pictures=True) for _ in range(50)]
    camera.publish()
    taken = [board.take(viewer) for viewer in viewers]
    assert camera.num_drawn == 1
    assert len({id(shown.jpeg) for shown in taken if shown is not None}) == 1


def test_a_slow_viewer_gets_the_newest_picture_and_its_misses_are_counted(board: LiveBoard) -> None:
    camera = Camera(board)
    slow, fast = board.watch("door", has_pictures=True), board.watch("door", has_pictures=True)
    for _ in range(10):
        camera.publish()
        assert board.take(fast) is not None
    shown = board.take(slow)
    assert shown is not None
    assert shown.number == 10
    assert (slow.num_taken, slow.num_missed) == (1, 9)
    assert (fast.num_taken, fast.num_missed) == (10, 0)
    assert board.take(slow) is None


def test_what_a_viewer_leaves_behind_is_missed_once(board: LiveBoard) -> None:
    camera = Camera(board)
    viewer = board.watch("door", has_pictures=True)
    camera.publish(4)
    board.leave(viewer)
    board.leave(viewer)
    assert board.counts()["door"] == {"published": 4, "encoded": 4, "viewers": 0, "missed": 4, "events": 0}


def test_what_was_published_before_a_viewer_came_is_not_taken(board: LiveBoard) -> None:
    camera = Camera(board)
    first = board.watch("door", has_pictures=True)
    camera.publish()
    assert board.take(board.watch("door", has_pictures=True)) is None
    assert board.take(first) is not None


def test_a_viewer_with_a_rate_gets_about_that_rate_and_no_more_is_drawn(board: LiveBoard, now_ns: list[int]) -> None:
    camera = Camera(board)
    viewer = board.watch("door", has_pictures=True, max_fps=10)
    taken = 0
    for _ in range(300):
        camera.publish()
        taken += board.take(viewer) is not None
        now_ns[0] += 33_333_333
    assert 95 <= taken <= 105
    assert camera.num_drawn == taken
    assert viewer.num_missed == 0


def test_only_watched_streams_wake_the_server(board: LiveBoard) -> None:
    told: list[str] = []
    board.listen(told.append)
    camera = Camera(board)
    camera.publish()
    viewer = board.watch("door", has_pictures=True)
    camera.publish()
    board.leave(viewer)
    camera.publish()
    assert told == ["door"]


def test_events_are_numbered_and_the_oldest_go_first(board: LiveBoard) -> None:
    for number in range(250):
        board.publish("door", b"{}", None, [b"%d" % number])
    kept = board.events_after("door", 0)
    first, newest = kept[0][0], kept[-1][0]
    assert [event for _, event in kept] == [b"%d" % number for number in range(50, 250)]
    assert [number for number, _ in kept] == list(range(first, first + 200))
    assert board.events_after("door", newest - 1) == [(newest, b"249")]
    assert board.events_after("door", newest) == []
    assert board.counts()["door"]["events"] == 250


def test_who_comes_back_after_a_restart_misses_no_event(board: LiveBoard) -> None:
    for _ in range(57):
        board.publish("door", b"{}", None, [b"before"])
    seen = board.events_after("door", 0)[-1][0]
    # a page adds to these numbers without losing one
    assert 0 < seen < 2**53 - 10**9
    for num_after in (1, 57, 58, 150):
        restarted = LiveBoard()
        restarted.add_stream("door", {})
        for _ in range(num_after):
            restarted.publish("door", b"{}", None, [b"after"])
        assert [event for _, event in restarted.events_after("door", seen)] == [b"after"] * num_after


def test_a_restarted_board_has_another_revision(board: LiveBoard) -> None:
    restarted = LiveBoard()
    restarted.add_stream("yard", {})
    assert restarted.revision != board.revision


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", {}),
        ("door=3,yard=7", {"door": 3, "yard": 7}),
        (f"door={2**48 + 57}", {"door": 2**48 + 57}),
        ("door,yard=,=,door=-1,gate=x,gate=1.5", {}),
        ("door=" + "9" * 5000 + ",yard=7", {"yard": 7}),
        ("door=" + "9" * 17, {}),
    ],
)
def test_which_events_a_client_has_is_read_and_nonsense_is_left_out(text: str, seen: dict[str, int]) -> None:
    assert parse_seen(text) == seen
    assert parse_seen(format_seen(seen)) == seen


def test_viewers_may_come_and_go_while_pictures_are_published(board: LiveBoard) -> None:
    camera = Camera(board)
    stop = threading.Event()
    faults: list[BaseException] = []

    def come_and_go() -> None:
        try:
            while not stop.is_set():
                viewer = board.watch("door", has_pictures=True)
                board.take(viewer)
                board.leave(viewer)
        except RuntimeError as error:
            faults.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    camera.publish(300)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert board.counts()["door"]["viewers"] == 0
    assert board.counts()["door"]["encoded"] == camera.num_drawn


# who draws for itself

GREY = PlaneForm("i420", 1280, 720)


def plain(marks: str = '{"shapes":[]}') -> Plain:
    planes = GREY.over(np.full(GREY.num_bytes, 128, np.uint8))
    return Plain(planes, marks.encode)


def size_of(jpeg: bytes | None) -> tuple[int, int]:
    assert jpeg is not None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.shape[1], image.shape[0]


def test_who_draws_for_itself_gets_the_plain_picture_at_its_width_and_what_is_to_be_drawn(board: LiveBoard) -> None:
    camera = Camera(board)
    viewer = board.watch("door", has_pictures=True, width=600)
    camera.publish(plain=plain())
    shown = board.take(viewer)
    assert shown is not None and camera.num_drawn == 0 and shown.jpeg is None
    assert size_of(shown.jpegs[viewer.width]) == (640, 360)
    assert (shown.result, shown.marks) == (b"{}", b'{"shapes":[]}')


def test_viewers_of_one_width_share_one_picture_and_all_widths_together_are_bounded(board: LiveBoard) -> None:
    camera = Camera(board)
    viewers = [board.watch("door", has_pictures=True, width=width) for width in range(1, 4000, 10)]
    camera.publish(plain=plain())
    shown = [board.take(viewer) for viewer in viewers]
    assert {width for one in shown if one for width in one.jpegs} == set(WIDTHS)
    # 480 and 640 are one picture, and all from 960 on
    assert board.counts()["door"]["encoded"] == 3
    assert camera.num_drawn == 0


def test_annotated_and_plain_pictures_go_to_whom_they_are_for(board: LiveBoard) -> None:
    camera = Camera(board)
    drawn, own = board.watch("door", has_pictures=True), board.watch("door", has_pictures=True, width=320)
    camera.publish(plain=plain())
    first, second = board.take(drawn), board.take(own)
    assert first is not None and second is not None and camera.num_drawn == 1
    assert size_of(first.jpeg) == (16, 16) and size_of(second.jpegs[320]) == (320, 180)


def test_marks_are_made_only_for_who_draws(board: LiveBoard) -> None:
    def marks() -> bytes:
        made.append(1)
        return b"{}"

    made: list[int] = []
    board.watch("door", has_pictures=True)
    board.watch("door", has_pictures=False)
    board.publish("door", b"{}", lambda: np.zeros((8, 8, 3), np.uint8), plain=Plain(plain().planes, marks))
    assert not made
    # over a video: every result, and no picture of its own
    board.watch("door", has_pictures=False, width=1280)
    board.publish("door", b"{}", lambda: np.zeros((8, 8, 3), np.uint8), plain=Plain(plain().planes, marks))
    assert made == [1]


def test_a_plain_video_gets_the_planes_and_nothing_is_drawn(board: LiveBoard) -> None:
    taken: list[UInt8 | Planes] = []
    board.listen_pictures(lambda stream, picture, time_ns: taken.append(picture))
    camera, given = Camera(board), plain()
    board.watch("door", has_pictures=True, is_video=True, width=1)
    camera.publish(plain=given)
    assert taken == [given.planes] and camera.num_drawn == 0


def test_without_a_plain_picture_the_annotated_one_is_shown(board: LiveBoard) -> None:
    camera = Camera(board)
    viewer = board.watch("door", has_pictures=True, width=600)
    camera.publish()
    shown = board.take(viewer)
    assert shown is not None and shown.marks == b"" and size_of(shown.jpegs[viewer.width]) == (16, 16)


def test_the_newest_picture_is_there_for_who_comes_later_whatever_it_shows(board: LiveBoard) -> None:
    camera = Camera(board)
    assert board.last_seen("door") is None
    board.leave(viewer := board.watch("door", has_pictures=True))
    board.watch("door", has_pictures=True, width=320)
    camera.publish(plain=plain())
    assert viewer.width == DRAWN and board.last_picture("door") is None
    seen = board.last_seen("door")
    assert seen is not None and (seen[0].number, seen[1]) == (1, 320)


@pytest.mark.parametrize(
    ("asked", "picture", "divisor"),
    [(320, 1280, 4), (600, 1280, 2), (640, 1920, 3), (700, 1920, 2), (1280, 1280, 1), (5000, 1280, 1), (1, 64, 1)],
)
def test_a_picture_is_made_smaller_by_whole_numbers_and_fills_its_place(asked: int, picture: int, divisor: int) -> None:
    assert divisor_for(width_step(asked), picture) == divisor

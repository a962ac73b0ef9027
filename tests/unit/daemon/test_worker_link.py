"""Messages between the daemon and a worker, and pictures in the memory that they share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config.workers import NUM_PLACES
from edge.daemon.workers.events import MAX_CHARS, EventsElsewhere, EventTaker
from edge.daemon.workers.link import Link, LinkClosedError, Message
from edge.daemon.workers.pages import PageMemory, PlaceTaker, ShownPage, WorkerBoard
from edge.daemon.workers.sounds import SoundElsewhere
from edge.errors import ConfigError, SinkError
from edge.events.schema import Envelope
from edge.pictures.planes import Colour, PlaneForm
from edge.server.board import LiveBoard
from edge.server.published import NEVER_NS, WIDTHS, Demand, Plain
from edge.video.packets import NOTHING, PacketForm, PacketTaker, PacketTap, SoundForm, SourcePacket, Wanted


class Pair:
    """Two ends of a link; what comes to the second one is kept, and handled by ``act`` where that is set."""

    def __init__(self) -> None:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.got: list[Message] = []
        self.act: Callable[[Message], None] = lambda _: None
        self.ours = Link(one, lambda _: None)
        self.theirs = Link(other, self._take)
        self.threads = [threading.Thread(target=link.run, daemon=True) for link in (self.ours, self.theirs)]
        for thread in self.threads:
            thread.start()

    def _take(self, message: Message) -> None:
        self.got.append(message)
        self.act(message)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_an_answer_comes_to_who_asked(pair: Pair) -> None:
    pair.act = lambda message: pair.theirs.answer(message, twice=2 * message["value"])
    answers: dict[int, int] = {}

    def ask(value: int) -> None:
        answers[value] = pair.ours.ask("double", 10, value=value)["twice"]

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == {value: 2 * value for value in range(20)}


def test_an_error_is_raised_as_what_it_was(pair: Pair) -> None:
    pair.act = lambda message: pair.theirs.answer_error(message, ConfigError("there is no such stream"))
    with pytest.raises(ConfigError, match="no such stream"):
        pair.ours.ask("add", 10)


def test_who_waits_hears_that_the_other_process_is_gone(pair: Pair) -> None:
    pair.act = lambda _: pair.theirs.close()
    with pytest.raises(LinkClosedError, match="gone"):
        pair.ours.ask("add", 30)
    with pytest.raises(LinkClosedError, match="gone"):
        pair.ours.ask("add", 30)


def test_no_answer_in_time_is_an_error(pair: Pair) -> None:
    with pytest.raises(LinkClosedError, match=r"no answer to 'add' within 0\.05 s"):
        pair.ours.ask("add", 0.05)


def test_what_may_be_dropped_never_waits() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        link = Link(one, lambda _: None)
        # nobody reads at the other end
        sent = [link.send("status", may_drop=True, text="x" * 50_000) for _ in range(20)]
        assert sent[0] and not sent[-1]
        link.close()


class Outbox:
    def __init__(self) -> None:
        self.rows: dict[str, Envelope] = {}
        self.is_full = False

    def put(self, envelopes: list[Envelope]) -> None:
        if self.is_full:
            raise SinkError("the disk is full")
        self.rows |= {event.id: event for event in envelopes}


class Outputs:
    snapshots = None

    def __init__(self) -> None:
        self.outbox = Outbox()


def taken(pair: Pair, outputs: Any) -> EventsElsewhere:
    memory = PageMemory()
    taker = EventTaker(outputs)
    pair.act = lambda message: taker.take(pair.theirs, memory, message)
    return EventsElsewhere(pair.ours, PlaceTaker(memory))


def test_events_are_in_the_outbox_when_put_returns_and_long_ones_fit(pair: Pair) -> None:
    outputs = Outputs()
    events = [Envelope(f"id{number}", "kind", "door", number, "\N{SNOWMAN}" * 3000) for number in range(100)]
    assert sum(len(event.body) for event in events) > 2 * MAX_CHARS
    taken(pair, outputs).put(events)
    assert list(outputs.outbox.rows.values()) == events


def test_events_that_the_outbox_refuses_are_not_acknowledged(pair: Pair) -> None:
    outputs = Outputs()
    elsewhere = taken(pair, outputs)
    outputs.outbox.is_full = True
    event = Envelope("id", "kind", "door", 1, "{}")
    with pytest.raises(SinkError, match="the disk is full"):
        elsewhere.put([event])
    outputs.outbox.is_full = False
    elsewhere.put([event])
    elsewhere.put([event])
    assert list(outputs.outbox.rows) == ["id"]


class Page:
    """A worker's board, and that of the daemon behind it."""

    def __init__(self, pair: Pair) -> None:
        self.memory = PageMemory()
        self.board = LiveBoard()
        self.board.add_stream("door", {})
        self.board.listen_demand(lambda _, demand: self.memory.put_demand(0, demand))
        self.memory.put_demand(0, self.board.demand("door"))
        self.places = PlaceTaker(self.memory)
        self.worker = WorkerBoard(pair.ours, self.places)
        self.worker.set_index("door", 0)
        self.shown = threading.Event()
        self.sound = SoundElsewhere(lambda is_heard: self.memory.heard.put(0, is_heard))
        page = ShownPage(self.memory, self.board)

        def show(message: Message) -> None:
            match message["kind"]:
                case "show":
                    page.show(message)
                case "video":
                    page.show_video(message)
                case _:
                    self.sound.take_message(message)
            self.shown.set()

        pair.act = show

    @staticmethod
    def fail() -> Any:
        raise AssertionError("nobody wants it drawn")

    def publish(self, level: int, events: tuple[bytes, ...] = ()) -> None:
        self.shown.clear()
        self.worker.publish("door", b'{"seq":%d}' % level, lambda: np.full((36, 64, 3), level, np.uint8), events)


def test_nothing_is_sent_or_drawn_while_nobody_watches(pair: Pair) -> None:
    page = Page(pair)
    page.publish(1)
    assert not page.worker.wants_picture("door")
    assert not page.shown.wait(0.1) and not pair.got


def test_who_watches_gets_lines_and_pictures_and_the_place_is_free_again(pair: Pair) -> None:
    page = Page(pair)
    viewer = page.board.watch("door", has_pictures=True)
    for level in range(3 * NUM_PLACES):
        page.publish(level)
        assert page.shown.wait(5)
        shown = page.board.take(viewer)
        assert shown is not None and shown.result == b'{"seq":%d}' % level
        assert shown.jpeg is not None and shown.jpeg[:2] == b"\xff\xd8"
    page.board.leave(viewer)
    page.publish(99)
    assert not page.shown.wait(0.1)
    assert not page.memory.free.any()


def test_a_viewer_with_a_rate_gets_pictures_at_that_rate(pair: Pair) -> None:
    page = Page(pair)
    page.board.watch("door", has_pictures=True, max_fps=0.01)
    page.publish(1)
    assert page.shown.wait(5)
    assert page.board.last_picture("door") is not None
    assert page.board.take(next(iter(page.board._channels["door"].viewers))) is not None
    page.publish(2)
    assert page.shown.wait(5)
    assert pair.got[-1]["jpegs"] == []


def test_video_gets_the_picture_as_it_is(pair: Pair) -> None:
    page = Page(pair)
    pictures: list[Any] = []
    page.board.listen_pictures(lambda _, image, __: pictures.append(image))
    page.board.watch("door", has_pictures=True, is_video=True)
    page.publish(7)
    assert page.shown.wait(5)
    assert pictures[0].shape == (36, 64, 3) and (pictures[0] == 7).all()


def test_who_draws_for_itself_gets_plain_pictures_and_video_from_a_worker_too(pair: Pair) -> None:
    page = Page(pair)
    pictures: list[Any] = []
    page.board.listen_pictures(lambda _, picture, __: pictures.append(picture))
    viewers = [page.board.watch("door", has_pictures=True, width=width) for width in (320, 640)]
    page.board.watch("door", has_pictures=True, is_video=True, width=1)
    form = PlaneForm("i420", 1280, 720, Colour("bt709"))
    planes = form.over(np.full(form.num_bytes, 99, np.uint8))
    page.worker.publish("door", b"{}", page.fail, plain=Plain(planes, lambda: b'{"shapes":[]}'))
    assert page.shown.wait(5)
    for viewer, size in zip(viewers, ((180, 320), (360, 640)), strict=True):
        shown = page.board.take(viewer)
        assert shown is not None and shown.marks == b'{"shapes":[]}'
        image = cv2.imdecode(np.frombuffer(shown.jpegs[viewer.width], np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and image.shape[:2] == size
    assert pictures[0].form == form and all((array == 99).all() for array in pictures[0].arrays)
    assert not page.memory.free.any()


@given(
    plain=st.dictionaries(st.sampled_from(WIDTHS), st.integers(0, NEVER_NS - 1)),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    numbers=st.tuples(st.integers(0, 1000), st.integers(0, NEVER_NS)),
)
def test_what_viewers_want_comes_through_the_memory_as_it_is(
    plain: dict[int, int], flags: tuple[bool, bool, bool], numbers: tuple[int, int]
) -> None:
    memory = PageMemory()
    try:
        demand = Demand(*numbers, *flags, plain)
        memory.put_demand(3, demand)
        assert memory.demand(3) == demand
    finally:
        memory.close()


def test_a_large_picture_comes_to_the_video_by_the_time_that_the_page_knows_its_result_by(pair: Pair) -> None:
    page = Page(pair)
    pictures: list[tuple[Any, int]] = []
    page.board.listen_pictures(lambda _, picture, time_ns: pictures.append((picture, time_ns)))
    viewer = page.board.watch("door", has_pictures=False)
    page.board.watch("door", has_pictures=True, is_video=True)
    shown_ns = page.worker.publish("door", b"{}", page.fail, captured_ns=time.monotonic_ns(), has_video=False)
    assert page.shown.wait(5)
    shown = page.board.take(viewer)
    assert shown is not None and shown.time_ns == shown_ns
    assert 0 < page.board.delay_ns("door") < 5_000_000_000
    form = PlaneForm("i420", 640, 360, Colour("bt709"))
    plain = form.over(np.full(form.num_bytes, 77, np.uint8))
    for picture in (plain, np.full((36, 64, 3), 9, np.uint8)):
        page.shown.clear()
        page.worker.put_video("door", picture, shown_ns)
        assert page.shown.wait(5)
    (first, first_ns), (second, second_ns) = pictures
    assert first.form == form and all((array == 77).all() for array in first.arrays)
    assert second.shape == (36, 64, 3) and (second == 9).all()
    assert first_ns == second_ns == shown_ns
    assert not page.memory.free.any()


class Listener(PacketTaker):
    """Who listens at the daemon."""

    def __init__(self) -> None:
        self.forms: list[PacketForm] = []
        self.packets: list[SourcePacket] = []

    @property
    def wanted(self) -> Wanted:
        return Wanted.SOUND

    def begin(self, form: PacketForm) -> None:
        self.forms.append(form)

    def take(self, packet: SourcePacket) -> None:
        self.packets.append(packet)


def test_sound_crosses_to_the_daemon_while_somebody_listens_there(pair: Pair) -> None:
    page, camera, listener = Page(pair), PacketTap(), Listener()
    page.worker.set_sound("door", camera)
    form = SoundForm("aac", bytes(range(256)))
    camera.begin(PacketForm("h264", 640, 360, b"parameters", form))
    assert page.shown.wait(5)
    assert page.sound.form is not None and page.sound.form.sound == form
    piece = SourcePacket(b"\x00\xff" * 200, 90, 90, True, 1_000_000, 2_000_000, is_sound=True)
    assert camera.wanted == NOTHING
    camera.take(piece)
    page.sound.listen(listener)
    assert camera.wanted == Wanted.SOUND
    page.shown.clear()
    camera.take(piece)
    assert page.shown.wait(5)
    page.sound.leave(listener)
    assert camera.wanted == NOTHING
    assert [one.sound for one in listener.forms] == [form]
    assert [(one.data, one.pts, one.time_ns) for one in listener.packets] == [(piece.data, 90, 1_000_000)]
    assert [message["kind"] for message in pair.got] == ["sound form", "sound"]


def test_a_camera_without_sound_is_told_as_one_and_what_is_too_large_stays_away(pair: Pair) -> None:
    page, camera = Page(pair), PacketTap()
    page.worker.set_sound("door", camera)
    page.sound.listen(Listener())
    for header in (b"", b"x" * 100_000):
        page.shown.clear()
        camera.begin(PacketForm("h264", 640, 360, b"", SoundForm("aac", header) if header else None))
        assert page.shown.wait(5)
        assert page.sound.form is not None and page.sound.form.sound is None
    camera.take(SourcePacket(b"x" * 100_000, 0, 0, True, 0, 0, is_sound=True))
    assert [message["kind"] for message in pair.got] == ["sound form", "sound form"]


def test_events_reach_the_page_without_a_viewer(pair: Pair) -> None:
    page = Page(pair)
    page.publish(1, (b'{"kind":"line_crossed"}',))
    assert page.shown.wait(5)
    assert [event for _, event in page.board.events_after("door", 0)] == [b'{"kind":"line_crossed"}']


def test_a_daemon_that_takes_nothing_costs_frames_and_holds_up_nobody(pair: Pair) -> None:
    page = Page(pair)
    page.memory.put_demand(0, Demand(1, 0, False))
    pair.act = lambda _: None
    for level in range(2 * NUM_PLACES):
        page.publish(level)
    assert page.worker.num_missed == NUM_PLACES


def test_the_demand_is_that_of_the_most_impatient_viewer() -> None:
    board = LiveBoard(clock_ns=lambda: 5)
    board.add_stream("door", {})
    assert board.demand("door") == Demand(0, NEVER_NS, False)
    board.watch("door", has_pictures=False)
    assert board.demand("door") == Demand(1, NEVER_NS, False)
    board.watch("door", has_pictures=True)
    assert board.demand("door") == Demand(2, 0, False)

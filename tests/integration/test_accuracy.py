"""``edge accuracy`` from films to a result: drawn, confirmed on its page, estimated, kept, told as a metric."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from daemon_process import COMMAND

from edge.accuracy.cards import Answer, Box, Card
from edge.accuracy.draw import Wanted, draw_round
from edge.accuracy.footage import given_films, moments_of, recorded_films
from edge.accuracy.page import served
from edge.accuracy.session import FOLDER, Round, Session, last_result, sentences_of
from edge.config.load import parse_config
from edge.config.schema import Config
from edge.daemon.accuracy_facts import AccuracyFacts
from edge.errors import DataError, UsageError
from edge.models.shipped import FOLDER as MODELS
from edge.server.metrics import prometheus_text
from edge.sources.synthetic import open_synthetic

LINE = {"name": "mid", "points_share": [(0.5, 0.3), (0.5, 1.0)]}


def configured(**stream: Any) -> Config:
    door = {"name": "door", "source": "rtsp://127.0.0.1:9/1", "analytics": {"lines": [LINE]}, **stream}
    model = {"path": str(MODELS / "street-nano-int8.onnx"), "engine": "ort", "threads": 1}
    return parse_config({"model": model, "streams": [door]}, where="test")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seconds of the street, twice a second."""
    path = tmp_path_factory.mktemp("film") / "street.mp4"
    scene = open_synthetic("synthetic://street?seed=3&size=320x180&objects=8&frames=80&fps=2")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2, options={"preset": "veryfast", "g": "8"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        while (picture := scene.read()) is not None:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture[0], format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def drawn(film: Path) -> tuple[Round, list[Any]]:
    """A round of twenty pictures and eight strips; a crossing was reported in the second and in the tenth second."""
    films = given_films([film])
    crossings = {"mid": [films[0].start_ns + second * 10**9 for second in (2, 10, 11)]}
    wanted = Wanted("door", films, crossings, MODELS / "street-nano.onnx", pictures=20, strips=8, looks=2, seed=5)
    return draw_round(configured(), wanted)


def test_a_round_has_pictures_with_boxes_and_strips_with_counts(drawn: tuple[Round, list[Any]]) -> None:
    cards, pictures = drawn[0].cards, drawn[1]
    assert len(cards) == len(pictures)
    assert [card.number for card in cards] == list(range(len(cards)))
    own = [card for card in cards if not card.line]
    assert 16 <= len(own) <= 30
    assert any(box.seen for card in own for box in card.boxes)
    strips = [card for card in cards if card.line == "mid"]
    assert sum(card.counted for card in strips) == 3
    assert pictures[strips[0].number].shape == (540, 1440, 3)
    # whole segments of five seconds, of a film of 39.5 s
    assert sum(drawn[0].sizes["mid"]) == 7
    assert sum(drawn[0].sizes["objects"]) == 40


def test_a_person_confirms_by_the_page_and_the_result_is_kept(drawn: tuple[Round, list[Any]], tmp_path: Path) -> None:
    session = Session(tmp_path / FOLDER / "door")
    session.begin(*drawn)
    with pytest.raises(DataError, match="are not confirmed yet"):
        session.finish()
    with served(session, 0) as address, httpx.Client(base_url=address, timeout=20) as client:
        assert "<canvas" in client.get("").text
        assert client.get("page.js").status_code == client.get("page.css").status_code == 200
        assert "default-src 'none'" in client.get("").headers["content-security-policy"]
        told = client.get("cards.json").json()
        assert told["stream"] == "door"
        assert client.get("000.jpg").headers["content-type"] == "image/jpeg"
        for card in told["cards"]:
            assert client.post("answer", json={"number": card["number"], **card["answer"]}).status_code == 204
        outside = httpx.URL(address).copy_with(path="/cards.json")
        for path in ("../cards.json", "answers.jsonl", "../../etc/passwd", "999.jpg", "page.py", "x/../cards.json"):
            assert client.get(path).status_code in (404, 200) and "wrong" not in client.get("answers.jsonl").text
        assert httpx.get(outside).status_code == 404
        for body in (b"{}", b"[" * 9999, b'{"number":1,"wrong":[-1],"missed":0,"crossed":0}', b"x" * 70_000):
            assert client.post("answer", content=body).status_code in (400, 413)
        assert client.post("answer", json=blank(999)).status_code == 404
    assert session.unanswered() == []
    result = session.finish()
    assert last_result(session.folder) == result
    objects = result["objects"]
    assert 0 < objects["recall"]["low"] <= objects["recall"]["value"] <= objects["recall"]["high"] <= 1
    assert result["lines"]["mid"]["precision"]["value"] == 1.0
    assert result["drift"] is None
    assert re.match(r"door: objects: recall \d\.\d\d \(\d\.\d\d to \d\.\d\d\), precision", sentences_of(result)[0])
    facts = AccuracyFacts(tmp_path, lambda: ["door", "yard"], 60)
    stopping = threading.Event()
    stopping.set()
    facts.run(stopping)
    text = prometheus_text({"accuracy": facts.by_stream}).decode()
    assert f'edge_recall{{bound="value",stream="door"}} {objects["recall"]["value"]}' in text
    assert 'edge_precision{bound="low",stream="door"}' in text


def blank(number: int) -> dict[str, Any]:
    return {"number": number, "wrong": [], "missed": 0, "crossed": 0}


def test_a_second_round_tells_what_has_changed(drawn: tuple[Round, list[Any]], tmp_path: Path) -> None:
    session = Session(tmp_path)
    for missed in (0, 4):
        session.begin(*drawn)
        for card in drawn[0].cards:
            session.answer(Answer(card.number, missed=0 if card.line else missed, crossed=card.counted))
        result = session.finish()
    assert result["drift"]["recall"]["change"] < -0.2
    assert result["drift"]["recall"]["is_real"]
    assert "a change" in sentences_of(result)[-1]


def test_an_interrupted_round_goes_on(drawn: tuple[Round, list[Any]], tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.begin(*drawn)
    session.answer(Answer(0))
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"number":1,"wro')
    assert Session(tmp_path).unanswered()[:2] == [1, 2]


def test_an_answer_becomes_true_false_and_missed() -> None:
    boxes = (
        Box("car", (0, 0, 1, 1), 0.9, True),
        Box("car", (0, 0, 1, 1), 0.8, True),
        Box("car", (0, 0, 1, 1), 0.3, False),
    )
    card = Card(0, 0, 0, boxes)
    assert card.outcome(Answer(0)) == (2, 0, 1)
    assert card.outcome(Answer(0, wrong=(1, 2), missed=2)) == (1, 1, 2)
    strip = Card(1, 0, 0, line="mid", counted=3)
    assert strip.outcome(Answer(1, crossed=2)) == (2, 1, 0)
    assert strip.outcome(Answer(1, crossed=5)) == (3, 0, 2)


def test_every_second_of_the_footage_has_the_same_chance(film: Path) -> None:
    films = given_films([film, film])
    moments = moments_of(films, 2000, 0.0, np.random.default_rng(0))
    times = np.array([moment.at_s for moment in moments])
    halves = [sum(moment.film is one for moment in moments) for one in films]
    assert abs(np.histogram(times, 4)[0] - 500).max() < 80
    assert sum(halves) >= 2000


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "records nothing"),
        ({"folder": "FOLDER", "content": "annotated"}, "shows what was seen"),
        ({"folder": "FOLDER", "content": "plain"}, "holds no recording"),
    ],
)
def test_footage_that_is_of_no_use_is_refused(record: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    given = None if record is None else {**record, "folder": str(tmp_path)}
    with pytest.raises(DataError, match=message):
        recorded_films(configured(record=given).streams[0], 0)


def test_what_is_no_film_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no film")
    with pytest.raises(UsageError, match="expected a film"):
        given_films([tmp_path / "x.mp4"])


def test_the_command_asks_and_tells(film: Path, tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[model]\npath = "{MODELS}/street-nano-int8.onnx"\nengine = "ort"\n'
        '[[streams]]\nname = "door"\nsource = "rtsp://127.0.0.1:9/1"\n'
    )
    arguments = ["accuracy", "door", "--config", str(config), "--footage", str(film), "--pictures", "20", "--json"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asked:
        assert asked.stderr is not None
        address = ""
        for line in asked.stderr:
            if found := re.search(r"pictures to confirm: (http\S+)", line):
                address = found[1]
                break
        try:
            with httpx.Client(base_url=address, timeout=30) as client:
                for card in client.get("cards.json").json()["cards"]:
                    client.post("answer", json={"number": card["number"], **card["answer"]})
            assert asked.stdout is not None
            told = json.loads(asked.stdout.read())
            assert asked.wait(30) == 0
        finally:
            asked.kill()
    assert told["stream"] == "door"
    assert told["lines"] == {}
    shown = subprocess.run(
        [*COMMAND, "accuracy", "door", "-c", str(config), "--show"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("door: objects: recall ")

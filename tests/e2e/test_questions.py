"""Questions about the past, put to a real daemon: why, what if, and what a recording would expect as a test."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens

from edge.cliptests.case import Case, cases_in
from edge.models.shipped import FOLDER

pytestmark = pytest.mark.real_server
LINE = {"name": "mid", "points_share": [[0.5, 0.3], [0.5, 1.0]]}
CONFIG = """
[[streams]]
name = "door"
source = "synthetic://street?seed=3&size=480x270&objects=10&fps=10&live=1"
[[streams.analytics.lines]]
name = "mid"
points_share = [[0.5, 0.3], [0.5, 1.0]]
[streams.record]
folder = "{folder}/films"
mode = "continuous"
content = "plain"
segment_s = 6
fragment_s = 1
"""
MORE = """
state_dir = "{folder}/state"
[track_store]
[tests]
folder = "{folder}/tests"
[events]
snapshots = "{folder}/snapshots"
"""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A street with a line, recorded, until a film is whole and somebody has crossed."""
    folder = tmp_path_factory.mktemp("door")
    server = with_tokens(folder, "can_edit = true\ncan_add_tests = true\n")
    streams, more = CONFIG.format(folder=folder), MORE.format(folder=folder)
    config = config_of(FOLDER / "street-nano-int8.onnx", streams, server, more)
    with daemon(folder, config) as running:
        running.wait_for("READY=1")
        running.until(lambda: running.url != "")
        with running.client() as client:
            running.until(lambda: len(recordings(client)) >= 1 and len(events(client)) >= 1, 60)
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text


def recordings(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.get("/api/recordings").json()["recordings"])


def events(client: httpx.Client) -> list[dict[str, Any]]:
    return [one for one in client.get("/api/history").json() if one["kind"] == "line_crossed"]


def answered(client: httpx.Client, **question: Any) -> dict[str, Any]:
    """The end of a question."""
    answer = client.post("/api/questions", json={"stream": "door", **question})
    assert answer.status_code == 202, answer.text
    path, until_s = f"/api/questions/{answer.json()['id']}", time.monotonic() + 60
    while (state := client.get(path).json())["state"] in ("waiting", "running"):
        assert time.monotonic() < until_s
        time.sleep(0.1)
    return {**state, "path": path}


def live_lines(client: httpx.Client) -> set[str]:
    return set(client.get("/api/stats").json()["streams"]["door"]["analytics"]["lines"])


def seconds_of(event: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def is_jpeg(address: str) -> bool:
    head, _, data = address.partition(",")
    return head == "data:image/jpeg;base64" and base64.b64decode(data)[:2] == b"\xff\xd8"


def drawn_now(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/api/streams/door/drawn").json())


def test_who_may_look_may_ask_why_and_sees_the_frame(door: Daemon) -> None:
    with door.client(VIEW_TOKEN) as client:
        event = events(client)[-1]
        state = answered(client, ask="why", at=seconds_of(event), kind="line_crossed")
        assert state["state"] == "done", state
        answer = state["answer"]
        assert answer["cause"] == "said" and "line 'mid'" in answer["sentence"]
        assert is_jpeg(answer["picture"])


def test_what_did_not_happen_names_the_setting_and_what_else_it_lets_through(door: Daemon) -> None:
    with door.client(VIEW_TOKEN) as client:
        state = answered(client, ask="why", at=time.time() - 1, part="mid", within_s=5)
        assert state["state"] == "done" and state["answer"]["cause"] and state["answer"]["sentence"]
        assert len(state["answer"]["others"]) <= state["answer"]["also"] or state["answer"]["also"] == 0


def test_what_if_without_a_change_is_what_was_said(door: Daemon) -> None:
    with door.client() as client:
        drawn = {key: value for key, value in drawn_now(client).items() if key != "version"}
        answer = answered(client, ask="what-if", drawn=drawn, hours=1)["answer"]
        assert answer["same"] > 0 and answer["sizes"] == {"gone": 0, "new": 0, "moved": 0}


def test_another_line_shows_each_event_that_differs_and_saving_makes_it_live(door: Daemon) -> None:
    with door.client() as client:
        before = drawn_now(client)
        lines = [{**LINE, "was": "mid", "name": "left", "points_share": [[0.25, 0.3], [0.25, 1.0]]}]
        wanted = {"lines": lines, "zones": [], "masks": []}
        answer = answered(client, ask="what-if", drawn=wanted, hours=1)["answer"]
        assert answer["gone"] and {one["kind"] for one in answer["gone"]} == {"line_crossed"}
        pictures = [one["picture"] for one in (*answer["gone"][:8], *answer["new"][:8])]
        assert pictures and all(one.startswith("snapshots/") or is_jpeg(one) for one in pictures)
        own = next(one for one in pictures if one.startswith("snapshots/"))
        assert client.get(f"/{own}").content[:2] == b"\xff\xd8"
        assert drawn_now(client) == before, "nothing is written before it is saved"
        body = {**wanted, "version": before["version"]}
        assert client.put("/api/streams/door/drawn", json=body).status_code == 200
        door.until(lambda: live_lines(client) == {"left"})
        back = {**before, "version": drawn_now(client)["version"]}
        back["lines"][0]["was"] = "left"
        assert client.put("/api/streams/door/drawn", json=back).status_code == 200
        door.until(lambda: live_lines(client) == {"mid"})


def test_another_score_is_tried_and_saved(door: Daemon, tmp_path: Path) -> None:
    with door.client() as client:
        drawn = {key: value for key, value in drawn_now(client).items() if key != "version"}
        assert drawn["score"] is None
        answer = answered(client, ask="what-if", drawn={**drawn, "score": 0.97}, hours=1)["answer"]
        assert sum(one["now"] for one in answer["counts"]) < sum(one["then"] for one in answer["counts"])


def test_a_recording_is_made_a_test_which_passes(door: Daemon) -> None:
    with door.client() as client:
        film = recordings(client)[-1]
        state = answered(client, ask="test", file=film["url"].rpartition("/")[2], name="evening")
        assert state["state"] == "done", state
        shown, folder = state["answer"], Path(door.process.args[-1]).parent / "tests"  # type: ignore[index,arg-type]
        assert shown["frames"] > 20 and shown["objects"] > 0
        assert all(is_jpeg(one["picture"]) for one in shown["pictures"])
        assert not list(cases_in(folder)), "it is none before it is saved"
        for name, code in (("../evening", 409), ("", 409), (7, 400), ("evening", 201), ("evening", 409)):
            assert client.put(state["path"], json={"name": name}).status_code == code
        (made,) = cases_in(folder)
        case = Case.read(made)
        assert case.frames == shown["frames"] and case.counts == shown["counts"]
        assert [path.name for path in folder.iterdir()] == ["evening"]


def test_a_moment_of_a_recording_is_cut_out(door: Daemon) -> None:
    with door.client() as client:
        film = recordings(client)[-1]
        at = seconds_of({"time": film["start"]}) + 3
        state = answered(client, ask="test", file=film["url"].rpartition("/")[2], at=at, around_s=1)
        assert 10 <= state["answer"]["frames"] < 50
        assert client.delete(state["path"]).status_code == 200
        assert client.put(state["path"], json={"name": "gone"}).status_code == 409


@pytest.mark.parametrize(
    ("question", "token", "code", "words"),
    [
        ({"ask": "what-if", "drawn": {}}, VIEW_TOKEN, 403, "operate token"),
        ({"ask": "test", "file": "a.mp4"}, VIEW_TOKEN, 403, "operate token"),
        ({"ask": "why"}, TOKEN, 409, "at: Field required"),
        ({"ask": "why", "at": 1e300}, TOKEN, 409, "at:"),
        ({"ask": "why", "at": 1e9, "stream": "nobody"}, TOKEN, 409, "there is no stream 'nobody'"),
        ({"ask": "who"}, TOKEN, 409, "one of: why, what-if, test"),
        ({"ask": "test", "file": "../../etc/passwd"}, TOKEN, 409, "there is no such recording"),
        ({"ask": "what-if", "drawn": {"lines": [{"name": "x", "points_share": [[0, 0]]}]}}, TOKEN, 409, "lines"),
        ({"ask": "what-if", "drawn": {}, "hours": 1e9}, TOKEN, 409, "hours"),
        ([], TOKEN, 409, "one of"),
    ],
)
def test_what_cannot_be_asked_is_told(door: Daemon, question: Any, token: str, code: int, words: str) -> None:
    with door.client(token) as client:
        body = {"stream": "door", **question} if isinstance(question, dict) else question
        answer = client.post("/api/questions", json=body)
        assert (answer.status_code, words in answer.text) == (code, True), answer.text


def test_damaged_questions_cost_one_sentence(door: Daemon) -> None:
    dice = random.Random(7)
    whole = {"ask": "what-if", "stream": "door", "hours": 1, "drawn": {"lines": [LINE], "zones": [], "masks": []}}
    texts = [json.dumps(one).encode() for one in (whole, {"ask": "test", "stream": "door", "file": "a.mp4", "at": 9.5})]
    with door.client() as client:
        for text in (b"", b"[]", b"3", b"\xff", b'{"ask": ["why"]}', b"[" * 30_000, b"x" * 70_000):
            assert put(client, text) in (400, 409, 413), text[:20]
        for _ in range(150):
            data = bytearray(dice.choice(texts))
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            assert put(client, bytes(data)) in (202, 400, 403, 409), bytes(data)


def put(client: httpx.Client, content: bytes) -> int:
    """Ask, and let go of what was understood after all."""
    answer = client.post("/api/questions", content=content, headers={"content-type": "application/json"})
    if answer.status_code == 202:
        client.delete(f"/api/questions/{answer.json()['id']}")
    return answer.status_code


def test_a_page_elsewhere_cannot_ask(door: Daemon) -> None:
    """What a form or a script elsewhere can send unasked is no JSON by its type."""
    with door.client() as client:
        text = json.dumps({"ask": "why", "stream": "door", "at": 1.0})
        assert client.post("/api/questions", content=text, headers={"content-type": "text/plain"}).status_code == 415


def test_questions_are_few_and_can_be_ended(door: Daemon) -> None:
    with door.client() as client:
        ids, answers = [], []
        for _ in range(9):
            answer = client.post("/api/questions", json={"ask": "why", "stream": "door", "at": time.time()})
            answers.append(answer.status_code)
            if answer.status_code == 202:
                ids.append(answer.json()["id"])
        assert answers.count(409) >= 3 and answers.count(202) >= 4
        states = [client.delete(f"/api/questions/{one}").json()["state"] for one in ids]
        assert states.count("cancelled") >= 4
        assert client.get("/api/questions/nothing").status_code == 409
        assert answered(client, ask="why", at=time.time() - 1)["state"] == "done", "and the next one is answered"

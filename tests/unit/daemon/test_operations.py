"""Orders to a running daemon: one that fails is reported and costs no later one; what proves good is kept."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.config.load import load_config, parse_config
from edge.config.schema import Config
from edge.daemon.operations import Operations
from edge.daemon.reload import Reloader
from edge.daemon.state import keep_swapped, with_state_dir, with_swapped
from edge.errors import EdgeError
from edge.pipeline import Pipeline
from edge.pipeline.swap.report import SwapReport


class Line:
    """A pipeline that runs nothing: streams come, go and fail as the test says."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started_ns = 0
        self.models = {model.name: None for model in config.models}
        self.streams = {stream.name: SimpleNamespace(config=stream) for stream in config.streams}
        self.swap: Callable[[Path], None] = lambda path: None
        self.add: Callable[[Any], None] = lambda stream: None
        self.rehearse: Callable[[Config, Any], None] = lambda config, mapped: None

    def add_stream(self, stream: Any) -> None:
        self.add(stream)
        self.streams[stream.name] = SimpleNamespace(config=stream)
        self._note()

    def remove_stream(self, name: str) -> bool:
        del self.streams[name]
        self._note()
        return True

    def swap_model(self, name: str, path: Path, **_: Any) -> SwapReport:
        self.swap(path)
        models = tuple(model.model_copy(update={"path": path}) for model in self.config.models)
        self.config = self.config.model_copy(update={"models": models})
        return SwapReport(name, str(path), "kept", "", "probation")

    def _note(self) -> None:
        streams = tuple(stream.config for stream in self.streams.values())
        self.config = self.config.model_copy(update={"streams": streams})


class Site:
    """A daemon's file, its state folder and its operations, without the daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder / "state", folder / "edge.toml"
        self.models = folder
        for name in ("m", "v2", "v3"):
            (folder / f"{name}.onnx").write_text(name)
        self.write()
        self.loaded = load_config(self.path)
        self.line = Line(with_swapped(self.loaded, self.folder))
        self.begin()

    def begin(self) -> None:
        pipeline: Pipeline = self.line  # type: ignore[assignment]
        self.reloader = Reloader(self.path, self.loaded, pipeline)
        self.operations = Operations(pipeline, self.reloader, self.path, self.folder)

    def restart(self) -> None:
        """As the daemon does: the file's configuration with the models that were swapped in."""
        self.loaded = load_config(self.path)
        self.line = Line(with_swapped(self.loaded, self.folder))
        self.begin()

    def write(self, *streams: str, more: str = "") -> None:
        tables = "".join(f'[[streams]]\nname = "{name}"\nsource = "0"\n' for name in streams or ("a",))
        self.path.write_text(f'{more}\n[model]\npath = "{self.models}/m.onnx"\n{tables}')

    def do(self) -> None:
        """Carry out what waits."""
        stopping = threading.Event()
        thread = threading.Thread(target=self.operations.run, args=(stopping,))
        thread.start()
        deadline = time.monotonic() + 10
        # the last order is over when the next one, which does nothing, is
        is_over = threading.Event()
        self.operations._put(SimpleNamespace(name="end", act=is_over.set, on_failure=print))  # type: ignore[arg-type]
        assert is_over.wait(deadline - time.monotonic())
        stopping.set()
        thread.join(5)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def running_path(site: Site) -> str:
    return site.line.config.models[0].path.name


# an order that fails


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), AttributeError("a mistake")])
def test_an_order_that_breaks_off_is_reported_and_the_next_is_carried_out(site: Site, error: Exception) -> None:
    def fail(_: Any) -> None:
        raise error

    site.line.swap = fail
    site.operations.order_swap("model", "v2.onnx", {})
    site.do()
    state = site.operations.swap_state("model")
    assert state["phase"] is None
    assert state["report"]["outcome"] == "refused" and str(error) in state["report"]["reason"]
    site.line.swap = lambda path: None
    site.operations.order_swap("model", "v2.onnx", {})
    site.do()
    assert running_path(site) == "v2.onnx"


def test_a_reload_that_breaks_off_is_reported_and_the_next_is_carried_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("edge.daemon.reload.load_config", lambda path: dict[str, Any]()["nothing"])
        site.operations.order_reload()
        site.do()
        assert "nothing" in site.operations.config_state()["last_reload"]["failed"][0]
    site.write("a", "b")
    site.operations.order_reload()
    site.do()
    assert site.operations.config_state()["last_reload"]["applied"] == ["stream b was added"]


def test_a_stream_that_cannot_begin_for_want_of_disk_leaves_the_old_one(site: Site) -> None:
    def full_for_new(stream: Any) -> None:
        if stream.score is not None:
            raise OSError(errno.ENOSPC, "No space left on device")

    site.line.add = full_for_new
    site.path.write_text(site.path.read_text() + "score = 0.5\n")
    site.operations.order_reload()
    site.do()
    failed = site.operations.config_state()["last_reload"]["failed"]
    assert "stream a was not started again" in failed[0] and "No space left" in failed[0]
    assert set(site.line.streams) == {"a"}
    # the file still asks for it
    site.line.add = lambda stream: None
    assert site.reloader.reload().applied == ["stream a was started again"]


def test_a_model_whose_hash_cannot_be_read_runs_and_is_not_kept(tmp_path: Path, caplog: Any) -> None:
    before = parse_config({"model": {"path": "m.onnx"}, "streams": [{"name": "a", "source": "0"}]}, where="x")
    keep_swapped("model", Path("m.onnx"), tmp_path / "gone.onnx", tmp_path / "state")
    assert "gone.onnx: cannot be read" in caplog.text
    assert with_swapped(before, tmp_path / "state") == before


# what is kept over a restart


def test_every_swap_outlives_a_restart_not_only_the_first(site: Site) -> None:
    for name in ("v2.onnx", "v3.onnx"):
        site.operations.order_swap("model", name, {})
        site.do()
        site.restart()
        assert running_path(site) == name


def test_a_swap_after_a_reload_is_kept_for_what_the_file_names_now(site: Site) -> None:
    site.path.write_text(site.path.read_text().replace("m.onnx", "v2.onnx"))
    assert site.reloader.reload().applied == ["model model runs v2.onnx now"]
    site.operations.order_swap("model", "v3.onnx", {})
    site.do()
    site.restart()
    assert running_path(site) == "v3.onnx"


@contextmanager
def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    with monkeypatch.context() as context:
        now_s = time.monotonic() + seconds
        context.setattr("edge.daemon.operations.time", SimpleNamespace(monotonic=lambda: now_s))
        yield


def test_the_file_is_kept_when_it_has_run_for_a_while_not_straight_after_a_reload(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = site.folder / "last-good.toml"
    site.write("a", "b")
    site.operations.order_reload()
    site.do()
    site.operations.keep_proven(60)
    assert not kept.exists()
    with later(monkeypatch, 61):
        site.operations.keep_proven(60)
    assert '"b"' in kept.read_text()


def test_an_edit_that_was_not_read_is_not_kept_as_good(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.path.write_text("half an edi")
    with later(monkeypatch, 61):
        site.operations.keep_proven(60)
    assert not (site.folder / "last-good.toml").exists()


def test_a_reload_that_failed_in_part_proves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise EdgeError("no")

    site.line.add = refuse
    site.write("a", "b")
    site.operations.order_reload()
    site.do()
    with later(monkeypatch, 61):
        site.operations.keep_proven(60)
    assert not (site.folder / "last-good.toml").exists()


def test_the_place_that_systemd_names_is_used_and_is_no_change_of_the_file(site: Site) -> None:
    assert with_state_dir(site.loaded, site.folder).state_dir == site.folder
    named = site.loaded.model_copy(update={"state_dir": Path("/named")})
    assert with_state_dir(named, site.folder).state_dir == Path("/named")
    site.line.config = with_state_dir(site.line.config, site.folder)
    assert site.reloader.reload().needs_restart == []
    assert site.line.config.state_dir == site.folder

"""A night shift from kept frames to a verdict: what it learns, whom it believes, and that a kill costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest
from night_street import DAY, DUSK, film, pictures, street_of, write_labelled
from night_teachers import Fault, write_poisoned
from tiny_yolox import write_tiny_yolox

from edge.config.night import NightSettings
from edge.model import find_manifest
from edge.night.choose import NS_PER_S
from edge.night.frames import CameraFrames
from edge.night.report import page, stand, told
from edge.night.shift import STAGES, Chain, Job, Progress, adopt, done_stages, report_of, sweep
from export.config import parse_config
from export.night.child import work
from export.night.learn import learn
from export.quantize.quantize import save_model
from export.to_onnx import export_onnx
from export.training.checkpoint import save_checkpoint
from export.training.train import train
from export.transfer.convert import checkpoint_of

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "edge" / "models" / "street-nano.onnx"
BEGIN_NS = 1_790_000_000 * NS_PER_S
# the process as the daemon starts it, but for its priority: a busy machine would never let it run
RUN = """
import sys
from pathlib import Path
from export.night import child
child.stand_back = lambda: None
child.main(Path(sys.argv[1]))
"""


class Site:
    """Kept frames of a street at dusk, a first model that knows little, and sealed pictures of streets by day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sealed = write_labelled(folder / "sealed", pictures(5000, 6, DAY))
        lessons = write_labelled(folder / "lessons", pictures(1000, 6, DAY))
        self.start, self.first = self._first(lessons)
        self.night = folder / "night"
        settings = self.settings()
        for place, camera in enumerate(("gate", "yard")):
            frames = CameraFrames(self.night, camera, settings)
            for number, (image, _) in enumerate(film(street_of(place, DUSK), 0, 12, 40)):
                jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                frames.keep(BEGIN_NS + number * 30 * NS_PER_S, ["random"], jpeg)

    def _first(self, lessons: str) -> tuple[Path, Path]:
        tree = {
            "task": "detect",
            "name": "site",
            "data": {"train": lessons, "val": lessons, "width": 160, "height": 96, "cache": False},
            "optim": {"epochs": 1, "batch_size": 6, "warmup_steps": 1},
            "run": {"threads": 1, "device": "cpu"},
        }
        start = train(parse_config(tree, "first"), self.folder / "first").checkpoint
        export_onnx(start, self.folder / "first.onnx")
        return start, self.folder / "first.onnx"

    def settings(self, teachers: tuple[Path, ...] = (TEACHER,), **more: Any) -> NightSettings:
        values: dict[str, Any] = {"start": self.start, "teachers": teachers, "sealed": [self.sealed], "min_frames": 8}
        return NightSettings(**values | {"processor_minutes": 0.5, "min_gain": 0, "random_per_hour": 100} | more)

    def copied(self, folder: Path) -> Path:
        shutil.copytree(self.night, folder)
        return folder

    def job(self, settings: NightSettings | None = None) -> Job:
        return Job("2026-11-30T020000", "model", self.first, self.first, settings or self.settings())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def unbroken(site: Site) -> Path:
    folder = site.copied(site.folder / "unbroken")
    site.job().write(folder)
    work(folder, site.job())
    return folder


def begun(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder)], env=environment, stderr=subprocess.DEVNULL)


def ended(folder: Path, job: Job) -> dict[str, Any]:
    found = report_of(folder, job.night)
    assert found is not None
    return found


def test_a_shift_labels_learns_judges_and_says_so(site: Site, unbroken: Path) -> None:
    found = ended(unbroken, site.job())
    assert done_stages(unbroken) == list(STAGES)
    assert found["frames"]["cameras"] == {"gate": 12, "yard": 12}
    assert found["labels"]["per_class"]["person"] > 10
    assert {one["camera"] for one in found["judged"]["per_camera"]} <= {"gate", "yard"}
    assert Path(found["candidate"]).is_file()
    assert Path(found["checkpoint"]).is_file()
    assert found["cpu_s"] > 1
    shown = page(unbroken)
    assert shown.count("data:image/jpeg") == len(found["judged"]["pictures"]) > 0
    assert "gate" in shown
    assert told(unbroken)["report"]["night"] == "2026-11-30T020000"


def test_killed_at_every_stage_it_comes_to_the_same_end(site: Site, unbroken: Path, tmp_path: Path) -> None:
    folder = site.copied(tmp_path / "night")
    job = site.job(site.settings(processor_minutes=1))
    job.write(folder)
    (folder / "work" / "recipe.json").write_bytes((unbroken / "work" / "recipe.json").read_bytes())
    for number, _ in enumerate(STAGES):
        # no more than four kills are forgiven, then it would be given up
        progress = Progress.read(folder)
        Progress(0, progress.cpu_s).write(folder)
        process, deadline_s = begun(folder), time.monotonic() + 300
        while len(done_stages(folder)) < number or Progress.read(folder).tries == 0:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert report_of(folder, job.night) is None
    assert begun(folder).wait(300) == 0
    found, wanted = ended(folder, job), ended(unbroken, site.job())
    assert found["labels"] == wanted["labels"]
    # the address of what was learned from differs, so pictures are drawn from other seeds: as good, not the same
    assert found["outcome"] in ("ready", "dropped")
    assert done_stages(folder) == list(STAGES)


def test_a_shift_ends_where_its_processor_time_does(site: Site, tmp_path: Path) -> None:
    folder = site.copied(tmp_path / "night")
    job = site.job(site.settings(processor_minutes=1))
    job.write(folder)
    Progress(0, 58.0).write(folder)
    assert begun(folder).wait(300) == 0
    assert ended(folder, job)["outcome"] == "dropped"
    assert "1 processor minutes were used up" in ended(folder, job)["reason"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("blind", "gives 0% of what it finds the right class"), ("class", "the right class, at least 90% is needed")],
)
def test_a_teacher_that_is_wrong_is_not_believed(site: Site, tmp_path: Path, fault: Fault, reason: str) -> None:
    folder = site.copied(tmp_path / "night")
    teacher = write_poisoned(TEACHER, tmp_path / "teacher.onnx", fault, seed=1, share=0.4)
    job = site.job(site.settings((teacher,)))
    job.write(folder)
    work(folder, job)
    found = ended(folder, job)
    assert (found["outcome"], found["learned"]) == ("dropped", {})
    assert found["reason"].startswith("no teacher can be believed: teacher.onnx")
    assert reason in found["reason"]


def test_too_few_frames_are_no_shift(site: Site, tmp_path: Path) -> None:
    folder, job = tmp_path / "night", site.job()
    job.write(folder)
    work(folder, job)
    assert ended(folder, job)["reason"] == "0 frames are kept, 8 are needed (night.min_frames)"


def test_a_kind_that_the_model_never_sees_begins_anew(site: Site, tmp_path: Path) -> None:
    folder, first = site.copied(tmp_path / "night"), tmp_path / "first.onnx"
    without_a_class(TEACHER, first, "car")
    job = replace(site.job(), configured=first, model=first)
    job.write(folder)
    work(folder, job)
    assert ended(folder, job)["learned"]["unseen"] == ["car"]
    recipe = json.loads((folder / "work" / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["transfer"]["renew"] == ["car"]


def test_a_network_that_came_from_an_onnx_file_learns_slowly_on_later_nights_too(site: Site, tmp_path: Path) -> None:
    foreign = write_tiny_yolox(tmp_path / "tiny.onnx", 3)
    card = {"classes": ["person", "bicycle", "car"], "licence": "Apache-2.0", "source": "made here"}
    foreign.with_suffix(".json").write_text(json.dumps(card | {"trained_on": "nothing"}))
    save_checkpoint(checkpoint_of(foreign), tmp_path / "last-night.pt")
    learn(tmp_path, tmp_path / "last-night.pt", (site.sealed, site.sealed), 1, 0.1, ["bicycle"])
    recipe = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["optim"]["lr"] == 0.00002
    assert recipe["transfer"]["renew"] == []


def without_a_class(good: Path, out: Path, name: str) -> None:
    """A copy of a detector of ours that never sees this class: its rows' offsets lie far down, as an absent one's."""
    model, row = onnx.load(good), find_manifest(good).classes.index(name)
    offsets = [one for one in model.graph.initializer if one.name.endswith("classes.bias")]
    for offset in offsets:
        value = onnx.numpy_helper.to_array(offset).copy()
        value[row] = -30
        offset.CopyFrom(onnx.numpy_helper.from_array(value, offset.name))
    assert offsets
    save_model(model, out, find_manifest(good))


def test_the_next_shift_learns_from_the_network_that_took_over(site: Site, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "night"
    shutil.copytree(unbroken, folder)
    found = json.loads(json.dumps(ended(unbroken, site.job())).replace(str(unbroken), str(folder)))
    adopt(folder, found, site.first)
    chain = Chain.read(folder, site.first)
    assert chain.checkpoint_of(Path(found["candidate"])) == Path(found["checkpoint"])
    assert chain.before(Path(found["candidate"])) == site.first
    assert chain.before(site.first) is None
    assert Chain.read(folder, Path("another.onnx")).links == ()
    replace(site.job(), model=Path(found["candidate"])).write(folder)
    sweep(folder, site.first)
    # the next shift has cleared the folder of work, and what is no longer needed is gone
    assert Path(found["checkpoint"]).is_file()
    assert stand(folder)["shift"]["stage"] == "collect"

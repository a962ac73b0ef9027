"""A shift from the kept frames to a verdict. A stage is done when its JSON file is there; a killed one begins again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.errors import AccuracyError, DataError, ModelError
from edge.files import load_object, sha256_of
from edge.model import find_manifest
from edge.night.frames import FRAMES, frames_of, private_folder
from edge.night.shift import MODELS, REPORTS, STAGES, WORK, Chain, Job, Progress, stage_facts, write_json
from edge.types import Detections
from export.data.open_data import open_dataset
from export.night.judge import Recalls, Sight, Skill, as_json, compared, keeps_sight, seen, skill
from export.night.label import KEEP, Remembered, read, vote
from export.teach.labels import Note, to_coco

log = logging.getLogger(__name__)
SEALED_SHARE, ASIDE_BELOW = 0.2, 0.3
MAX_PICTURES = 1500
LEAST_SEALED = 4
# of what the model that runs sees surely, on frames drawn fairly
SAMPLED = 80
# a teacher gives nine of ten objects the right class, and knows no less than its pupil
LEAST_RIGHT, MOST_BEHIND = 0.9, 0.02
# several teachers agree with their vote
LEAST_AGREED = 0.6
INT8_DROP = 0.02
# a class is new to the model that runs where it finds hardly one of so many objects from this score on
LEAST_NEW, UNSEEN_SHARE, LEAST_SEEN_SCORE = 10, 0.05, 0.05
MAX_SHOWN = 12
BEFORE_BGR, AFTER_BGR = (40, 120, 240), (60, 170, 40)


class BudgetError(Exception):
    """The processor time is used up."""


def run_shift(folder: Path, job: Job, progress: Progress) -> None:
    """Do the stages that are left; a report is there afterwards.

    Raises:
        EdgeError: why the shift ends without a model.
        BudgetError: its time is used up.
    """
    shift = Shift(folder, job, progress)
    stages: Mapping[str, Callable[[], dict[str, Any]]] = {
        "collect": shift.collect,
        "teachers": shift.teachers,
        "label": shift.label,
        "learn": shift.learn,
        "quantize": shift.quantize,
        "judge": shift.judge,
    }
    try:
        for name in STAGES:
            path = folder / WORK / f"{name}.json"
            if not path.is_file():
                log.info("%s", name)
                write_json(path, stages[name]())
                progress.note(folder, shift.used_s())
    finally:
        # a camera that was forgotten meanwhile took the folder of work with it
        if (folder / WORK).is_dir():
            progress.note(folder, shift.used_s())
    verdict = stage_facts(folder, "judge")
    report(folder, job, verdict["outcome"], verdict["reason"])


def drop(folder: Path, job: Job, reason: str) -> None:
    """Report a shift that ends without a model."""
    report(folder, job, "dropped", reason)


def report(folder: Path, job: Job, outcome: str, reason: str) -> None:
    """Write the morning report, of what is there."""
    private_folder(folder / REPORTS)
    progress = Progress.read(folder)
    facts = {stage: stage_facts(folder, stage) for stage in STAGES}
    collected = facts["collect"]
    value = {
        "night": job.night,
        "model": job.name,
        "outcome": outcome,
        "reason": reason,
        "running": str(job.model),
        "candidate": facts["quantize"].get("model", ""),
        # that of the folder of work is gone with the next shift
        "checkpoint": facts["quantize"].get("checkpoint", ""),
        "frames": {key: collected.get(key, {}) for key in ("cameras", "reasons", "parts")},
        "teachers": facts["teachers"].get("teachers", []),
        "labels": facts["label"],
        "learned": facts["learn"],
        "int8": facts["quantize"].get("int8"),
        "judged": facts["judge"],
        "tries": progress.tries,
        "cpu_s": round(progress.cpu_s, 1),
    }
    write_json(folder / REPORTS / f"{job.night}.json", value)


class Shift:
    """The stages. Each gives its facts as JSON values; what else it makes lies in the folder of work."""

    def __init__(self, folder: Path, job: Job, progress: Progress) -> None:
        self._folder, self._job, self._settings = folder, job, job.settings
        self._work = folder / WORK
        self._used_s, self._begun_s = progress.cpu_s, time.process_time()
        self._manifest = find_manifest(job.model)
        self._classes = self._manifest.classes
        self._threads = job.settings.threads
        self._score = self._manifest.thresholds.score

    def used_s(self) -> float:
        """Processor seconds that the shift has used, in this process and in those before."""
        return self._used_s + time.process_time() - self._begun_s

    def collect(self) -> dict[str, Any]:
        """Take the kept frames as they are now, and part them by moments: learned, aside for INT8, sealed for ever."""
        name = self._job.model.name
        if self._manifest.task != "detect" or self._job.model.suffix != ".onnx":
            raise ModelError(f"{name}: expected a detector as an ONNX file; the night shift teaches nothing else")
        kept = frames_of(self._folder)[-MAX_PICTURES:]
        if len(kept) < self._settings.min_frames:
            raise DataError(f"{len(kept)} frames are kept, {self._settings.min_frames} are needed (night.min_frames)")
        shutil.rmtree(self._work / FRAMES, ignore_errors=True)
        frames: dict[str, dict[str, Any]] = {}
        for one in kept:
            place = private_folder(private_folder(self._work / FRAMES) / one.camera) / f"{one.wall_ns}.jpg"
            # it may make room for a newer one while the shift works; a kill may leave two of a moment
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(one.path, place)
                part = "sealed" if one.draw < SEALED_SHARE else "aside" if one.draw < ASIDE_BELOW else "learn"
                frames[f"{one.camera}/{one.wall_ns}"] = {"part": part, "reasons": list(one.reasons)}
        parts = Counter(frame["part"] for frame in frames.values())
        if parts["sealed"] < LEAST_SEALED:
            raise DataError(f"{parts['sealed']} of the site's frames are sealed, {LEAST_SEALED} are needed to judge by")
        reasons = Counter(reason for frame in frames.values() for reason in frame["reasons"])
        cameras = Counter(name.rpartition("/")[0] for name in frames)
        return {"frames": frames, "parts": parts, "reasons": reasons, "cameras": cameras}

    def _frames(self, *parts: str, is_random: bool = False) -> dict[str, Path]:
        """Name → file, of these parts of the frames; all without any."""
        found = stage_facts(self._folder, "collect")["frames"]
        return {
            name: self._work / FRAMES / f"{name}.jpg"
            for name, frame in found.items()
            if (not parts or frame["part"] in parts) and (not is_random or "random" in frame["reasons"])
        }

    def teachers(self) -> dict[str, Any]:
        """Ask the teachers for what people have labelled: who knows less than the pupil, or other classes, is out."""
        own = self._skills(self._job.model)
        found = []
        for path in self._settings.teachers:
            skills = self._skills(path)
            reason = next((why for uri in skills if (why := _unfit(skills[uri], own[uri]))), "")
            found.append({"teacher": path.name, "path": str(path), "reason": reason, "sealed": as_json(skills)})
        if all(teacher["reason"] for teacher in found):
            first = found[0]
            raise AccuracyError(f"no teacher can be believed: {first['teacher']} {first['reason']}")
        return {"teachers": found, "pupil": as_json(own)}

    def _skills(self, path: Path) -> dict[str, Skill]:
        """On the sealed sets; a file that was judged on the same pictures is not judged again."""
        kept = self._folder / "judged.json"
        known, found, name = load_object(kept), {}, sha256_of(path)
        for uri in self._settings.sealed:
            dataset = open_dataset(uri, "detect", on_error="skip")
            key = f"{name[:24]} {dataset.fingerprint[:24]}"
            if key not in known:
                known[key] = asdict(skill(path, dataset, self._threads))
                write_json(kept, known)
            found[uri] = Skill(**known[key])
        return found

    def label(self) -> dict[str, Any]:
        """Let the teachers label; those that see another world than the pupil, or than most of them, are out."""
        frames = self._frames()
        notes = private_folder(self._folder / "labels")
        named = [Path(one["path"]) for one in stage_facts(self._folder, "teachers")["teachers"] if not one["reason"]]
        looked: dict[str, dict[str, Detections]] = {}
        for path in named:
            remembered = Remembered(notes, path, self._classes, self._threads)
            looked[path.name] = remembered.look(frames)
            remembered.forget(frames)
        out = self._disagreeing(looked) | self._strangers(looked)
        heard = {name: labels for name, labels in looked.items() if name not in out}
        if not heard:
            name, reason = next(iter(out.items()))
            raise AccuracyError(f"no teacher can be believed on the site's frames: {name} {reason}")
        return {"out": out, **self._write_labels(heard)}

    def _disagreeing(self, looked: Mapping[str, Mapping[str, Detections]]) -> dict[str, str]:
        """Of three or more teachers, those that see otherwise than their vote; of two that differ, both."""
        if len(looked) < 2:
            return {}
        found = {}
        for name, labels in looked.items():
            total = Sight()
            for frame in labels:
                voted, doubtful = vote([other[frame] for other in looked.values()])
                mine = labels[frame]
                total += compared(mine[mine.score >= KEEP], voted[~doubtful])
            if total.same < LEAST_AGREED:
                found[name] = (
                    f"agrees with the vote on {total.same:.0%} of its objects, at least {LEAST_AGREED:.0%} is needed"
                )
        return found

    def _strangers(self, looked: Mapping[str, Mapping[str, Detections]]) -> dict[str, str]:
        """Those that see nothing of what the pupil surely sees on the site, or call it something else."""
        sample = dict(list(self._frames().items())[-SAMPLED:])
        sure = seen(self._job.model, sample.values(), self._threads)
        found, own, least = {}, self._job.model.name, self._settings.min_trust
        for name, labels in looked.items():
            total = sum((compared(sure[path], labels[frame]) for frame, path in sample.items()), Sight())
            if total.met < least:
                found[name] = f"sees {total.met:.0%} of what {own} surely sees, at least {least:.0%} is needed"
            elif total.right < least:
                found[name] = f"calls {total.right:.0%} of what both see as {own} does, at least {least:.0%} is needed"
        return found

    def _write_labels(self, heard: Mapping[str, Mapping[str, Detections]]) -> dict[str, Any]:
        """A COCO file per part of the frames; how many labels there are of each class."""
        parts: dict[str, list[Note]] = {"learn": [], "aside": [], "sealed": []}
        counts: Counter[str] = Counter()
        found = stage_facts(self._folder, "collect")["frames"]
        for number, (name, path) in enumerate(self._frames().items()):
            boxes, doubtful = vote([labels[name] for labels in heard.values()])
            height, width = read(path).shape[:2]
            values = boxes.xyxy.tolist(), boxes.class_id.tolist(), boxes.score.tolist(), doubtful.tolist()
            parts[found[name]["part"]].append(Note(0, number, f"{FRAMES}/{name}.jpg", (width, height), *values))
            counts.update(self._classes[label] for label in boxes.class_id[~doubtful].tolist())
        for part, notes in parts.items():
            (self._work / f"{part}-labels.json").write_text(
                to_coco(notes, self._classes, {"teachers": sorted(heard)}), encoding="utf-8"
            )
        return {"heard": sorted(heard), "per_class": counts}

    def _set(self, part: str) -> str:
        return f"coco:{self._work / f'{part}-labels.json'}"

    def learn(self) -> dict[str, Any]:
        """Learn from the labels, and from what teaches besides."""
        # torch is loaded when there is something to learn
        from export.night.learn import learn

        chain = Chain.read(self._folder, self._job.configured)
        start = chain.checkpoint_of(self._job.model) or self._settings.start or self._job.model
        aside = self._set("aside" if self._frames("aside") else "learn")
        sets = (" + ".join([self._set("learn"), *self._settings.replay]), aside)
        unseen = self._unseen()
        left_s = self._settings.processor_minutes * 60 - self.used_s()
        result = learn(self._work, start, sets, self._threads, left_s, unseen)
        return {
            "start": str(start),
            "unseen": unseen,
            "checkpoint": str(result.checkpoint),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
        }

    def _unseen(self) -> list[str]:
        """Classes that the teachers see on the site and the model that runs never does, not even doubtfully."""
        labelled = open_dataset(self._set("learn"), "detect", on_error="skip")
        recalls = Recalls(LEAST_SEEN_SCORE, self._classes)
        skill(self._job.model, labelled, self._threads, recalls)
        found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for (_, name), (truth, hits) in recalls.counts.items():
            found[name][0] += truth
            found[name][1] += hits
        unseen = [name for name, (truth, hits) in found.items() if truth >= LEAST_NEW and hits < UNSEEN_SHARE * truth]
        # where nothing is seen, no row shows what an object is
        return unseen if len(unseen) < len(self._classes) else []

    def quantize(self) -> dict[str, Any]:
        """Write what would run: as precise as what runs now."""
        from export.night.learn import exported, quantized

        place = private_folder(self._folder / MODELS)
        checkpoint = Path(stage_facts(self._folder, "learn")["checkpoint"])
        name = f"{self._job.name}-{self._job.night}".replace(":", "")
        kept, model = place / f"{name}.pt", place / f"{name}.onnx"
        shutil.copyfile(checkpoint, kept)
        exported(checkpoint, model, self._manifest)
        if self._manifest.precision != "int8":
            return {"model": str(model), "checkpoint": str(kept), "int8": None}
        frames = list(self._frames("learn").values())
        # those that ranges are measured on are left out there
        judged = " + ".join([self._set("aside"), self._set("learn"), *self._settings.replay])
        result = quantized(model, place / f"{name}-int8.onnx", frames, judged, self._threads, INT8_DROP)
        int8 = {"drop": round(result.drop, 5), "method": result.scheme.method, "agreement": result.verdict.agreement}
        return {"model": str(result.out), "checkpoint": str(kept), "int8": int8}

    def judge(self) -> dict[str, Any]:
        """Compare the new model with the one that runs, on what neither has learned from."""
        candidate = Path(stage_facts(self._folder, "quantize")["model"])
        skills, own = self._skills(candidate), self._skills(self._job.model)
        # against the site's first model, so that many small losses are none
        known = self._skills(self._job.configured) if self._job.configured.is_file() else own
        dataset = open_dataset(self._set("sealed"), "detect", on_error="skip")
        before, after = Recalls(self._score, self._classes), Recalls(self._score, self._classes)
        site = [
            skill(path, dataset, self._threads, recalls)
            for path, recalls in ((self._job.model, before), (candidate, after))
        ]
        footage = dict(list(self._frames("sealed", "aside", is_random=True).items())[-SAMPLED:])
        sure = seen(self._job.model, footage.values(), self._threads)
        sight = keeps_sight(sure, candidate, self._threads, self._score)
        reason = self._why_not(skills, known, site, sight)
        rows = [
            {
                "camera": camera,
                "class": name,
                "objects": counts[0],
                "before": before.of(camera, name),
                "after": after.of(camera, name),
            }
            for (camera, name), counts in sorted(after.counts.items())
        ]
        gain = site[1].ap50 - site[0].ap50
        words = f"AP50 on the site's sealed frames {site[0].ap50:.3f} → {site[1].ap50:.3f} ({gain:+.3f})"
        return {
            "outcome": "dropped" if reason else "ready",
            "reason": reason or words,
            "sealed": {
                uri: {"first": known[uri].ap50, "before": own[uri].ap50, "after": skills[uri].ap50} for uri in skills
            },
            "site": {"frames": len(dataset), "before": site[0].ap50, "after": site[1].ap50},
            "agreement": round(sight.same, 4),
            "per_camera": rows,
            "pictures": self._draw(before, after),
        }

    def _why_not(
        self, skills: Mapping[str, Skill], known: Mapping[str, Skill], site: Sequence[Skill], sight: Sight
    ) -> str:
        """Why the new model must not take over, in one sentence; empty where it may."""
        settings = self._settings
        for uri, one in skills.items():
            if one.ap50 < known[uri].ap50 - settings.max_drop:
                return (
                    f"it would lose what was known: AP50 {known[uri].ap50:.3f} → {one.ap50:.3f} on {uri}, "
                    f"at most {settings.max_drop:.3f} may be lost"
                )
        if site[1].ap50 < site[0].ap50 + settings.min_gain:
            return (
                f"it brings too little: AP50 {site[0].ap50:.3f} → {site[1].ap50:.3f} on the site's sealed frames, "
                f"at least {settings.min_gain:+.3f} is wanted"
            )
        if sight.same < settings.min_agreement:
            return (
                f"it sees {sight.same:.0%} of what the model that runs surely sees on the site, "
                f"at least {settings.min_agreement:.0%} is wanted"
            )
        return ""

    def _draw(self, before: Recalls, after: Recalls) -> list[dict[str, str]]:
        """Pictures of the sealed frames in which most has changed: what runs left, what would run right."""
        place = self._folder / REPORTS / self._job.night
        shutil.rmtree(place, ignore_errors=True)
        frames = {f"{FRAMES}/{name}.jpg": (name, path) for name, path in self._frames("sealed").items()}
        changed = sorted(after.taken, key=lambda one: abs(len(after.taken[one]) - len(before.taken[one])), reverse=True)
        shown: list[dict[str, str]] = []
        for image_id in changed[:MAX_SHOWN]:
            name, path = frames[image_id]
            camera = name.rpartition("/")[0]
            image = read(path)
            pair = [
                _drawn(image, found, self._classes, colour)
                for found, colour in ((before.taken[image_id], BEFORE_BGR), (after.taken[image_id], AFTER_BGR))
            ]
            file = private_folder(private_folder(place) / camera) / f"{len(shown):02}.jpg"
            file.write_bytes(cv2.imencode(".jpg", np.hstack(pair))[1].tobytes())
            file.chmod(0o600)
            shown.append({"camera": camera, "file": f"{camera}/{file.name}"})
        return shown


def _unfit(teacher: Skill, pupil: Skill) -> str:
    """Why a teacher cannot be believed, by what both do with pictures that people have labelled; empty if it can."""
    if teacher.right < LEAST_RIGHT:
        return f"gives {teacher.right:.0%} of what it finds the right class, at least {LEAST_RIGHT:.0%} is needed"
    for what, its, own in (("AP50", teacher.ap50, pupil.ap50), ("recall", teacher.recall, pupil.recall)):
        if its < own - MOST_BEHIND:
            return f"knows less than its pupil: {what} {its:.3f} against {own:.3f}"
    return ""


def _drawn(image: Any, found: Detections, classes: Sequence[str], colour: tuple[int, int, int]) -> Any:
    scale = 480 / image.shape[1]
    small = cv2.resize(image, (480, round(image.shape[0] * scale)), interpolation=cv2.INTER_AREA)
    for box, label in zip((found.xyxy * scale).round().astype(int).tolist(), found.class_id.tolist(), strict=True):
        cv2.rectangle(small, box[:2], box[2:], colour, 2)
        cv2.putText(small, classes[label], (box[0], max(10, box[1] - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1)
    return small

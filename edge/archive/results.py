"""The folder of results: every file in it is written whole or not at all, and a run that was interrupted goes on.

``job.json`` says what the results were made with. ``detections``, ``tracks``, ``events`` and ``jsonl`` hold a file per
video, ``done`` its account, written last; ``parts`` what is known of videos that are not finished.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.archive.clips import Clip, Part, Split
from edge.errors import DataError, UsageError
from edge.files import atomic_path, load_object, write_atomic

if TYPE_CHECKING:
    from edge.archive.job import Job

SCHEMA = 1
OUTPUTS = {"detections": ".parquet", "tracks": ".parquet", "events": ".parquet", "jsonl": ".jsonl"}


class ResultFolder:
    """Where the results of one job lie. Used by one process at a time, except for ``open_outputs``."""

    def __init__(self, folder: Path, job: Job) -> None:
        """Open a folder, or make one.

        Raises:
            UsageError: it holds the results of another job.
            DataError: it cannot be written.
        """
        self.folder = folder
        facts = json.loads(json.dumps({"schema": SCHEMA, **job.facts()}))
        path = folder / "job.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = load_object(path)
            if found and found != facts:
                changed = sorted(key for key in facts.keys() | found.keys() if facts.get(key) != found.get(key))
                raise UsageError(f"{folder}: made with another {', '.join(changed)}; expected a new --out folder")
            if not found:
                write_atomic(path, json.dumps(facts, indent=2) + "\n")
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror}); expected a folder for results") from None

    def account(self, clip: Clip) -> dict[str, Any]:
        """What ``keep_account`` wrote of this very content; empty where the video is not finished."""
        found = load_object(self._place("done", clip, ".json"))
        return found if found.get("stamp") == clip.stamp else {}

    def keep_account(self, clip: Clip, facts: Mapping[str, Any]) -> None:
        """Close a video: from now on no run touches it again."""
        path = self._place("done", clip, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"file": clip.key, "stamp": clip.stamp, **facts}, indent=2) + "\n")
        shutil.rmtree(self._parts(clip), ignore_errors=True)

    def part(self, clip: Clip, number: int) -> Path:
        """Where the objects of a part lie, or will lie."""
        return self._parts(clip) / f"{number:06d}.npz"

    def keep_part(self, clip: Clip, number: int, data: bytes) -> None:
        path = self.part(clip, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)

    def split_of(self, clip: Clip) -> Split | None:
        """How an earlier run has cut a video, which holds for the parts that it left."""
        found = load_object(self._parts(clip) / "split.json")
        try:
            parts = tuple(Part(**part) for part in found["parts"])
            base = found["time_base"]
            return Split(found["fps"], None if base is None else (base[0], base[1]), found["began_ns"], parts)
        except (KeyError, TypeError):
            return None

    def keep_split(self, clip: Clip, split: Split) -> None:
        path = self._parts(clip) / "split.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [{"start": part.start, "end": part.end, "num_frames": part.num_frames} for part in split.parts]
        facts = {"fps": split.fps, "time_base": split.time_base, "began_ns": split.began_ns, "parts": parts}
        write_atomic(path, json.dumps(facts))

    def open_outputs(self, clip: Clip, closing: ExitStack) -> dict[str, Path]:
        """Output → a temporary path that takes its place when ``closing`` ends well."""
        opened = {}
        for kind, suffix in OUTPUTS.items():
            path = self._place(kind, clip, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            opened[kind] = closing.enter_context(atomic_path(path))
        return opened

    def _parts(self, clip: Clip) -> Path:
        """A folder of its own for every state of the video's content."""
        digest = hashlib.sha256(f"{clip.key}\0{clip.stamp}".encode()).hexdigest()
        return self.folder / "parts" / digest[:32]

    def _place(self, kind: str, clip: Clip, suffix: str) -> Path:
        place = self.folder / kind / f"{clip.key}{suffix}"
        if not place.resolve().is_relative_to(self.folder.resolve()):
            raise UsageError(f"{clip.key}: a name that leads out of {self.folder}")
        return place

"""The kept frames on disk: a folder per camera, a JPEG per frame, all that is known of it in its name.

A name is ``TIME-REASON+REASON.jpg``, the time in nanoseconds since 1970. A picture is there whole or not at all; what a
kill leaves behind is swept at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.files import atomic_path
from edge.night.choose import NS_PER_HOUR, ticket

if TYPE_CHECKING:
    from edge.config.night import NightSettings

log = logging.getLogger(__name__)
FRAMES = "frames"
MASKS = ".masks"
ALL = 1 << 64
NS_PER_DAY = 24 * NS_PER_HOUR
MB = 1_000_000
_NAME = re.compile(r"(\d{1,20})-([a-z+-]{1,80})\.jpg")
# frames of the same moment are alike: they lie on the same side of every split
MOMENT_NS = 20 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A kept frame. Attributes: ``wall_ns`` since 1970; why it was kept; ``num_bytes`` of its file."""

    camera: str
    wall_ns: int
    reasons: tuple[str, ...]
    path: Path
    num_bytes: int

    @property
    def is_random(self) -> bool:
        """Whether the fair sample has it."""
        return "random" in self.reasons

    @property
    def ticket(self) -> int:
        return ticket(self.camera, self.wall_ns)

    @property
    def draw(self) -> float:
        """In [0, 1), the same for all frames of a camera's moment, for ever: to which part of a split they belong."""
        moment = f"{self.camera} {self.wall_ns // MOMENT_NS}"
        return int.from_bytes(hashlib.sha256(moment.encode()).digest()[:6], "big") / (1 << 48)


def frames_of(folder: Path, camera: str | None = None) -> list[KeptFrame]:
    """All kept frames below the night's folder, or those of a camera, oldest first."""
    place = folder / FRAMES
    cameras = [camera] if camera is not None else sorted(one.name for one in place.iterdir()) if place.is_dir() else []
    return sorted((one for name in cameras for one in _in(place / name)), key=lambda one: (one.wall_ns, one.camera))


def _in(folder: Path) -> Iterator[KeptFrame]:
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        name = _NAME.fullmatch(entry.name)
        if name is not None and entry.is_file(follow_symlinks=False):
            # another process may make room meanwhile
            with contextlib.suppress(FileNotFoundError):
                size = entry.stat(follow_symlinks=False).st_size
                yield KeptFrame(folder.name, int(name[1]), tuple(name[2].split("+")), Path(entry.path), size)


def private_folder(folder: Path) -> Path:
    """The folder, made so that the daemon's user alone can look into it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


class CameraFrames:
    """The kept frames of one camera. Used by one thread, ``wants`` by any.

    Attributes:
        thresholds: hour and kind of sample → the number below which a frame has a place in it, where it is full;
            replaced as a whole.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, camera: str, settings: NightSettings, masks: str = "") -> None:
        """Open, and sweep what a kill left.

        Args:
            folder: of the night.
            camera: its name.
            settings: the bounds.
            masks: what hides parts of its picture; where it changed, the frames from before are deleted.
        """
        private_folder(folder)
        self._place = private_folder(private_folder(folder / FRAMES) / camera)
        self._folder, self.camera, self._settings = folder, camera, settings
        for left in self._place.glob(".*.jpg"):
            left.unlink(missing_ok=True)
        self._kept: dict[int, KeptFrame] = {}
        self._forget_if_masked_otherwise(masks)
        self._kept = {one.wall_ns: one for one in _in(self._place)}
        self.thresholds: Mapping[tuple[int, bool], int] = {}

    def wants(self, wall_ns: int, is_random: bool) -> bool:
        """Whether a frame of this time has a place in its hour: in the fair sample, or among the doubtful ones."""
        limit = self._limit(is_random)
        return limit > 0 and ticket(self.camera, wall_ns) < self.thresholds.get(
            (wall_ns // NS_PER_HOUR, is_random), ALL
        )

    def _limit(self, is_random: bool) -> int:
        return self._settings.random_per_hour if is_random else self._settings.doubtful_per_hour

    def _rivals(self, wall_ns: int, is_random: bool) -> list[KeptFrame]:
        """Of the same hour and kind, the smallest numbers first."""
        hour = wall_ns // NS_PER_HOUR
        found = [one for one in self._kept.values() if one.wall_ns // NS_PER_HOUR == hour]
        # what is in both samples has its place in each
        fit = [one for one in found if (one.is_random if is_random else one.reasons != ("random",))]
        return sorted(fit, key=lambda one: one.ticket)

    def keep(self, wall_ns: int, reasons: Sequence[str], jpeg: bytes) -> None:
        """Write a frame, readable by this user alone; what it takes the place of goes, and what is too much.

        Raises:
            OSError: it cannot be written; nothing of it is there then.
        """
        path = self._place / f"{wall_ns}-{'+'.join(reasons)}.jpg"
        with atomic_path(path, 0o600) as temporary:
            temporary.write_bytes(jpeg)
        before = self._kept.get(wall_ns)
        if before is not None and before.path != path:
            # the clock was set back: a moment has one frame
            before.path.unlink(missing_ok=True)
        self._kept[wall_ns] = KeptFrame(self.camera, wall_ns, tuple(reasons), path, len(jpeg))
        for is_random in (True, False):
            for one in self._rivals(wall_ns, is_random)[self._limit(is_random) :]:
                self._lose(one, is_random)
        self._make_room(wall_ns)
        self._note_thresholds(wall_ns)

    def _note_thresholds(self, wall_ns: int) -> None:
        found = {}
        for is_random in (True, False):
            rivals, limit = self._rivals(wall_ns, is_random), self._limit(is_random)
            if 0 < limit <= len(rivals):
                found[wall_ns // NS_PER_HOUR, is_random] = rivals[limit - 1].ticket
        self.thresholds = found

    def _lose(self, one: KeptFrame, is_random: bool) -> None:
        """Take a frame out of one of the two samples; it goes where the other does not have it either."""
        left = tuple(name for name in one.reasons if (name != "random") == is_random)
        if not left:
            self._remove([one])
            return
        path = one.path.with_name(f"{one.wall_ns}-{'+'.join(left)}.jpg")
        one.path.replace(path)
        self._kept[one.wall_ns] = KeptFrame(one.camera, one.wall_ns, left, path, one.num_bytes)

    def _make_room(self, now_ns: int) -> None:
        """The oldest go: of this camera by number and age, of all by bytes."""
        oldest = sorted(self._kept.values(), key=lambda one: one.wall_ns)
        is_old = [one for one in oldest if now_ns - one.wall_ns > self._settings.max_days * NS_PER_DAY]
        rest = oldest[len(is_old) :]
        self._remove([*is_old, *rest[: max(0, len(rest) - self._settings.per_camera)]])
        everything = frames_of(self._folder)
        excess = sum(one.num_bytes for one in everything) - self._settings.max_mb * MB
        for one in everything:
            if excess <= 0:
                break
            excess -= one.num_bytes
            self._remove([one])

    def _remove(self, frames: Sequence[KeptFrame]) -> None:
        for one in frames:
            one.path.unlink(missing_ok=True)
            if one.camera == self.camera:
                self._kept.pop(one.wall_ns, None)

    def _forget_if_masked_otherwise(self, masks: str) -> None:
        note = self._place / MASKS
        before = note.read_text(encoding="utf-8") if note.is_file() else ""
        if before == masks:
            return
        if any(True for _ in _in(self._place)):
            log.warning("%s: its masks changed: the frames kept before are deleted", self.camera)
            self._remove(list(_in(self._place)))
        with atomic_path(note, 0o600) as temporary:
            temporary.write_text(masks, encoding="utf-8")


def forget(folder: Path, camera: str) -> int:
    """Delete every kept frame of a camera, and what shifts hold of it; how many there were.

    Raises:
        OSError: they cannot be deleted.
    """
    kept = frames_of(folder, camera)
    for one in kept:
        one.path.unlink(missing_ok=True)
    # a shift that looks at them ends, and what teachers saw is asked again
    for place in (folder / "labels", folder / "work", *(folder / "reports").glob("*/")):
        gone = place / camera if place.parent.name == "reports" else place
        if gone.is_dir():
            shutil.rmtree(gone)
    return len(kept)

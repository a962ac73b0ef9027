"""What is given to the workers of an archive, whoever runs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.archive.clips import Clip, Part, Split, split
from edge.errors import SourceError

KILLED = "its decoder ends the process that reads it"


@dataclass(frozen=True, slots=True)
class Work:
    """A part of a video that is to be looked through. Attributes: the video, the part's number in it, the part."""

    clip: Clip
    number: int
    part: Part


class Runner(Protocol):
    """Runs the work of one job somewhere. Answers come as they are there, in any order, each once."""

    @property
    def name(self) -> str:
        """Where it runs, for people."""

    def split(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Split | str]]:
        """How each video is cut, or why it cannot be used."""

    def detect(self, work: Sequence[Work]) -> Iterator[tuple[Work, bytes | str]]:
        """What was found, as ``Found.to_bytes`` gives it, or why the video cannot be used.

        Raises:
            EdgeError: the model cannot be used, or the workers are gone.
        """


def split_clip(clip: Clip, part_frames: int) -> Split | str:
    """See ``edge.archive.clips.split``; for what cannot be read, why."""
    try:
        return split(clip.address, part_frames)
    except SourceError as error:
        return str(error)

"""One clip test: a folder with pictures, and ``test.json`` with what must be seen in them. Made to be edited by hand.

The pictures are ``clip.mp4`` (or another film: the packets of a camera or a recording), or ``capture/``, one stream of
a raw capture. Times are seconds since the first picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from edge.config.section import Section
from edge.errors import DataError
from edge.files import parse_json, read_regular, write_atomic

NAME = "test.json"
CAPTURE = "capture"
MAX_BYTES = 16 << 20
# time, class, box in pixels of the picture that the model sees
SeenObject = tuple[float, str, float, float, float, float]


class ExpectedEvent(Section):
    """Something that happens in the clip.

    Attributes:
        what: which line, zone, direction and class, as the event's ``data`` names them.
    """

    kind: str
    time_s: float
    what: dict[str, str] = Field(default_factory=dict)

    def named(self) -> str:
        """``line_crossed gate in person at 4.2 s``."""
        return f"{' '.join((self.kind, *self.what.values()))} at {self.time_s:.1f} s"


class Tolerances(Section):
    """How far a run may differ and still pass.

    Attributes:
        time_s: an event may come so much earlier or later.
        lost_events, more_events: so many may be missing, or come besides.
        lost_frames: the share of the pictures that may be missing.
        lost_objects: the share of the objects that need not be found again, with their class.
        min_overlap: the least mean overlap (IoU) of the boxes that are found again.
    """

    time_s: float = Field(default=1.0, ge=0)
    lost_events: int = Field(default=0, ge=0)
    more_events: int = Field(default=0, ge=0)
    lost_frames: float = Field(default=0.02, ge=0, le=1)
    lost_objects: float = Field(default=0.1, ge=0, le=1)
    min_overlap: float = Field(default=0.8, ge=0, le=1)


class Case(Section):
    """What ``test.json`` says.

    Attributes:
        stream: whose settings apply.
        pictures: the film, or ``capture``.
        is_prepared: masks, region, turn and size of the stream are in the pictures already.
        wall_ns: the wall clock at the first picture, for schedules.
        frames: pictures that reach the model.
        made_by: version, and hash of the model, that saw what is expected.
    """

    version: Literal[1] = Field(default=1, alias="schema")
    stream: str
    pictures: str = Field(pattern=r"^[^/\x00]{1,255}$")
    is_prepared: bool = False
    wall_ns: int = 0
    frames: int = Field(ge=0)
    events: tuple[ExpectedEvent, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    objects: tuple[SeenObject, ...] = ()
    tolerances: Tolerances = Tolerances()
    made_by: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Case:
        """Raises: DataError: there is no test, or it is damaged."""
        path = folder / NAME
        try:
            return cls.model_validate(parse_json(read_regular(path, MAX_BYTES)))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); run: edge test add") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{path}: {where or 'the file'}: {first['msg']}") from None
        except ValueError as error:
            raise DataError(f"{path}: no JSON ({error})") from None

    def write(self, folder: Path) -> None:
        """Raises: OSError: it cannot be written."""
        write_atomic(folder / NAME, self.model_dump_json(by_alias=True, indent=1) + "\n")


def cases_in(folder: Path) -> Iterator[Path]:
    """The folders of the tests in a folder, by name."""
    return iter(sorted(path.parent for path in folder.glob(f"*/{NAME}")))


def what_of(data: dict[str, Any]) -> dict[str, str]:
    """What makes an event this one: its line or zone, direction and class."""
    return {key: str(data[key]) for key in ("line", "zone", "direction", "class") if key in data}


def counts_of(events: tuple[ExpectedEvent, ...]) -> dict[str, int]:
    """``line_crossed gate in`` → how often, whatever class."""
    found: dict[str, int] = {}
    for event in events:
        name = " ".join((event.kind, *(value for key, value in event.what.items() if key != "class")))
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))

"""What a capture child may say to its parent, and nothing else.

A stream can take a decoder over, so every message is checked against these types before anybody looks at it: numbers
within their bounds, texts of a bounded length, no key that is not known.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from edge.addresses.printable import printable
from edge.errors import SourceError
from edge.metrics.stages import DropCause
from edge.pictures.planes import Colour, Matrix, PlaneForm, PlaneFormat
from edge.types import HealthChange
from edge.video.packets import MAX_GROUP, MAX_WALL_NS

MAX_SIDE_PX = 1 << 15
MAX_SLOTS = 64
MAX_CHANGES = 64


def _line(text: str) -> str:
    return " ".join(printable(text).split())


Text = Annotated[str, Field(max_length=2000), AfterValidator(_line)]
Count = Annotated[int, Field(ge=0, le=1 << 31)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
# of a clock in nanoseconds, or of a position in a stream of bytes
Time = Annotated[int, Field(ge=-(1 << 60), le=1 << 60)]
Place = Annotated[int, Field(ge=0, le=1 << 60)]
WallTime = Annotated[int, Field(ge=0, le=MAX_WALL_NS)]
Health = Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Info(_Message):
    """A source; see ``edge.interfaces.SourceInfo``."""

    width: Side
    height: Side
    fps: Annotated[float, Field(ge=0, le=1000)]
    is_live: bool
    num_frames: Count | None
    decoder: Annotated[str, Field(max_length=200), AfterValidator(_line)]


class Fenced(_Message):
    """The file on which the questions of ``edge.sources.isolation.fence`` come, next to it; no file: none will come."""

    kind: Literal["fence"]


class Opened(_Message):
    """The source is open."""

    kind: Literal["opened"]
    info: Info


class Failure(_Message):
    """The source cannot be opened, or broke."""

    kind: Literal["error"]
    text: Text
    is_lacking: bool = False
    can_ask_again: bool = False


class Ring(_Message):
    """Shared memory for the pictures that follow; its file comes next to it."""

    kind: Literal["ring"]
    generation: Count
    format: PlaneFormat
    height: Side
    width: Side
    matrix: Matrix
    is_full: bool
    num_slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]

    def form(self) -> PlaneForm:
        """Of the pictures."""
        return PlaneForm(self.format, self.width, self.height, Colour(self.matrix, self.is_full))


class ChangeData(_Message):
    """Since when, and for ``camera_recovered`` from what."""

    seconds: Annotated[float, Field(ge=0, le=1e9)]
    since: Health | None = Field(default=None, alias="from")


class Coded(_Message):
    """What brings coded pictures."""


class CodedPicture(Coded):
    """A coded picture in that memory: where, then the fields of ``SourcePacket`` behind its data, in their order."""

    kind: Literal["packet"]
    at: Place
    size: Annotated[int, Field(ge=0, le=1 << 26)]
    facts: tuple[Time, Time, bool, Time, Time, Count, WallTime, bool]


class Picture(_Message):
    """A picture in the ring, and the packet that waited for it."""

    kind: Literal["frame"]
    slot: Annotated[int, Field(ge=0, lt=MAX_SLOTS)]
    captured_ns: Time
    pts_ns: Time | None
    drops: dict[DropCause, Count]
    changes: Annotated[tuple[tuple[Health, ChangeData], ...], Field(max_length=MAX_CHANGES)]
    packets: Annotated[tuple[CodedPicture, ...], Field(max_length=1)] = ()

    @model_validator(mode="after")
    def _says_from_what(self) -> Picture:
        if any(kind == "camera_recovered" and data.since is None for kind, data in self.changes):
            raise ValueError("from what it has recovered is missing")
        return self

    def health_changes(self) -> list[HealthChange]:
        return [HealthChange(kind, data.model_dump(by_alias=True, exclude_none=True)) for kind, data in self.changes]


class Sound(_Message):
    """Of coded sound; see ``edge.video.packets.SoundForm``. The header is hexadecimal."""

    codec: Literal["aac", "opus"]
    header: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]


class Form(_Message):
    """Of coded pictures; see ``edge.video.packets.PacketForm``. The header is hexadecimal."""

    codec: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
    width: Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]
    height: Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]
    header: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]
    sound: Sound | None = None


class PacketRing(_Message):
    """Shared memory for coded pictures, ``bytes`` long; its file comes next to it."""

    kind: Literal["packets"]
    form: Form
    size: Annotated[int, Field(alias="bytes", ge=1, le=1 << 26)]


class Group(Coded):
    """Several of them, one after the other."""

    kind: Literal["group"]
    packets: Annotated[tuple[CodedPicture, ...], Field(min_length=1, max_length=MAX_GROUP)]


class Level(_Message):
    """How loud it is; see ``edge.video.packets.SoundLevel``."""

    kind: Literal["level"]
    dbfs: Annotated[float, Field(ge=-200, le=20)]
    time_ns: Time


class Alive(_Message):
    """Pictures come, but none is let through."""

    kind: Literal["alive"]


class End(_Message):
    """The source has come to its end."""

    kind: Literal["end"]


Message: TypeAlias = (
    Fenced | Opened | Failure | Ring | Picture | PacketRing | CodedPicture | Group | Level | Alive | End
)
_KINDS: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def parse_message(data: bytes) -> Message:
    """A message of a child.

    Raises:
        SourceError: it is none of these.
    """
    try:
        return _KINDS.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SourceError(f"the decoder process sent what it may not ({place or 'message'}: {first['type']})") from None

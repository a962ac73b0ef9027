"""What is drawn on a stream's picture, read from and written into the text of an edge.toml; all else in it stays.

The text is edited by tomlkit, which keeps comments and order. What comes out is read again and must say exactly what
was asked, so a text that cannot be edited is refused and never damaged.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import tomlkit
import tomlkit.items
from pydantic import Field, ValidationError, model_validator
from tomlkit.exceptions import TOMLKitError

from edge.config.analytics import ScheduleSettings, Seconds, Share
from edge.config.picture import Mask
from edge.config.section import Section
from edge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_SHAPES = 100
KINDS = ("lines", "zones")


class DrawnShape(Section):
    """A line or zone as the page draws it.

    Attributes:
        was: its name in the file, where it was renamed; None: the same.
        points_share: corners as shares of the picture.
        classes: that matter; empty for all.
        schedules: when it is watched; empty for always.
    """

    name: str = Field(min_length=1, max_length=64)
    was: str | None = None
    points_share: tuple[tuple[Share, Share], ...] = Field(min_length=2, max_length=MAX_SHAPES)
    classes: tuple[str, ...] = ()
    schedules: tuple[ScheduleSettings, ...] = ()

    def keys(self) -> dict[str, Any]:
        """What stands in its table, TOML values; an empty list says that the key goes."""
        schedules = [
            {key: value.isoformat("minutes") if hasattr(value, "isoformat") else value for key, value in one.items()}
            for one in (schedule.model_dump(exclude_defaults=True) for schedule in self.schedules)
        ]
        points = [[round(x, 4), round(y, 4)] for x, y in self.points_share]
        return {
            "name": self.name,
            "points_share": points,
            "classes": list(self.classes),
            "schedules": [{**one, **({"days": list(one["days"])} if "days" in one else {})} for one in schedules],
        }


class DrawnZone(DrawnShape):
    """A zone with what is watched in it; what is not named here stays as it is in the file, what is None goes.

    Attributes:
        loiter_s, stopped_s, crowd_count, crowd_s: see ``ZoneSettings``.
    """

    loiter_s: Seconds | None = None
    stopped_s: Seconds | None = None
    crowd_count: int | None = Field(default=None, gt=0)
    crowd_s: Seconds | None = None

    def keys(self) -> dict[str, Any]:
        named = [key for key in DrawnZone.__annotations__ if key in self.model_fields_set]
        return super().keys() | {key: [] if (value := getattr(self, key)) is None else value for key in named}


class Drawn(Section):
    """All that is drawn on one stream: what is not named here is taken out of the file.

    Attributes:
        masks: polygons in shares of the camera's own picture.
        score: the least of a detection; None: the model's own; where it is not named, it stays.
    """

    lines: tuple[DrawnShape, ...] = Field(default=(), max_length=MAX_SHAPES)
    zones: tuple[DrawnZone, ...] = Field(default=(), max_length=MAX_SHAPES)
    masks: tuple[Mask, ...] = Field(default=(), max_length=MAX_SHAPES)
    score: Share | None = None

    @model_validator(mode="after")
    def _is_one_for_one(self) -> Drawn:
        for kind, shapes in (("line", self.lines), ("zone", self.zones)):
            names = [shape.was or shape.name for shape in shapes]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two {kind}s are, or were, named {min(twice)!r}; names must differ")
        return self


def parse_drawn(value: Any) -> Drawn:
    """Check what a client sent.

    Raises:
        ConfigError: it is not what is expected.
    """
    try:
        return Drawn.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc'])) or 'drawn'}: {first['msg']}") from None


def drawn_in(text: str, stream: str) -> dict[str, Any]:
    """``lines``, ``zones``, ``masks`` and ``score`` of a stream as they stand in the file, with all of their keys.

    Raises:
        ConfigError: the text is no TOML, or has no such stream.
    """
    table = _stream(tomllib.loads(text), stream)
    analytics = table.get("analytics", {})
    kinds = {kind: analytics.get(kind, []) for kind in KINDS}
    return {**kinds, "masks": table.get("masks", []), "score": table.get("score")}


def with_drawn(text: str, stream: str, drawn: Drawn) -> str:
    """The text with other lines, zones and masks in the table of one stream.

    A line or zone that is there keeps its further keys and its comments; its corners become ``points_share``.

    Raises:
        ConfigError: there is no such stream, or its tables are written in a way that cannot be edited.
    """
    raw = tomllib.loads(text)
    expected = copy.deepcopy(raw)
    _draw(_stream(expected, stream), drawn, dict, list)
    try:
        document = tomlkit.parse(text)
        table = _stream(document, stream)
        is_inline = isinstance(table, tomlkit.items.InlineTable)
        _draw(table, drawn, *((tomlkit.inline_table, list) if is_inline else (tomlkit.table, tomlkit.aot)))
        edited = tomlkit.dumps(document)
        is_right = tomllib.loads(edited) == expected
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError, ValueError, AttributeError, KeyError):
        is_right = False
    if not is_right:
        raise ConfigError(
            f"the tables of stream {stream!r} are written in a way that cannot be edited from here; "
            "write [[streams.analytics.lines]] and [[streams.analytics.zones]] as tables of their own"
        )
    return edited


def _stream(document: Mapping[str, Any], name: str) -> Any:
    for table in document.get("streams", []):
        if table.get("name") == name:
            return table
    raise ConfigError(f"the file has no stream called {name!r}")


def _draw(stream: MutableMapping[str, Any], drawn: Drawn, table: Callable[[], Any], tables: Callable[[], Any]) -> None:
    """Change the table of a stream: of plain dictionaries, or of an editable text."""
    masks = [[[round(x, 4), round(y, 4)] for x, y in mask] for mask in drawn.masks]
    if stream.get("masks", []) != masks:
        _set(stream, "masks", masks)
    if "score" in drawn.model_fields_set and stream.get("score") != drawn.score:
        _set(stream, "score", [] if drawn.score is None else drawn.score)
    is_new = "analytics" not in stream
    analytics = table() if is_new else stream["analytics"]
    for kind, shapes in (("lines", drawn.lines), ("zones", drawn.zones)):
        there = analytics.get(kind)
        if not shapes:
            analytics.pop(kind, None)
        elif there is None:
            there = tables()
            for shape in shapes:
                there.append(_table_of(shape, table, tables))
            analytics[kind] = there
        elif isinstance(there, tomlkit.items.Array):
            # a list within a line takes no tables of their own
            _change(there, shapes, tomlkit.inline_table, list)
        else:
            _change(there, shapes, table, tables)
    if is_new and analytics:
        stream["analytics"] = analytics
    elif not is_new and not analytics:
        del stream["analytics"]


def _change(
    there: MutableSequence[Any],
    shapes: Sequence[DrawnShape],
    table: Callable[[], Any],
    tables: Callable[[], Any],
) -> None:
    """Bring a list of tables to these shapes: in their own order, the new ones last."""
    wanted = {shape.was or shape.name: shape for shape in shapes}
    for place in reversed(range(len(there))):
        if there[place]["name"] not in wanted:
            del there[place]
    for part in there:
        _set_all(part, wanted.pop(part["name"]).keys(), table, tables)
    for shape in shapes:
        if (shape.was or shape.name) in wanted:
            there.append(_table_of(shape, table, tables))


def _table_of(shape: DrawnShape, table: Callable[[], Any], tables: Callable[[], Any]) -> Any:
    part = table()
    _set_all(part, shape.keys(), table, tables)
    return part


def _set_all(
    part: MutableMapping[str, Any], keys: Mapping[str, Any], table: Callable[[], Any], tables: Callable[[], Any]
) -> None:
    if part.get("points_share") != keys["points_share"]:
        part.pop("points_px", None)
    for key, value in keys.items():
        if part.get(key, []) == value:
            continue
        if key != "schedules" or not value:
            _set(part, key, value)
            continue
        schedules = tables()
        for one in value:
            schedule = table()
            schedule.update(one)
            schedules.append(schedule)
        part[key] = schedules


def _set(table: MutableMapping[str, Any], key: str, value: Any) -> None:
    """An empty list is what a missing key means."""
    if value == []:
        table.pop(key, None)
    else:
        table[key] = value

"""The routes that change something: read the configuration again, change a model. They need the operate token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import EdgeError
from edge.server.deeds import tell_more
from edge.server.json_answer import JSON, JsonAnswer
from edge.server.request_body import read_small
from edge.server.who import refuse_unless_role

if TYPE_CHECKING:
    from edge.server.cameras import Adder
    from edge.server.edit import Editor
    from edge.server.night import Night
    from edge.server.questions import Questioner
    from edge.server.turning import Turner

MAX_BODY_BYTES = 64 * 1024
MAX_CLASSES = 1000


class Orders(Protocol):
    """What the daemon can be asked for."""

    def order_reload(self) -> None: ...

    def order_swap(self, name: str, file_name: str, classes: Mapping[str, str]) -> None: ...

    def swap_state(self, name: str) -> dict[str, Any]: ...

    def models(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Operable:
    """The orders and which of them the configuration allows.

    Attributes:
        editor: changes the file, where that is allowed.
        adder: adds cameras to it, where that is allowed.
        questions: answers questions about the past.
        night: tells of the night shift, where there is one.
        turner: turns cameras, where one can be turned.
    """

    orders: Orders
    can_reload: bool = False
    can_swap: bool = False
    editor: Editor | None = None
    adder: Adder | None = None
    questions: Questioner | None = None
    night: Night | None = None
    turner: Turner | None = None


class OperateRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(self, operable: Operable) -> None:
        self._operable = operable
        self.editor = operable.editor
        self.adder = operable.adder
        self.questions = operable.questions
        self.night = operable.night
        self.turner = operable.turner

    async def models(self, request: Request) -> Response:
        """The models that run, and how their last swap went."""
        return JsonAnswer(self._operable.orders.models())

    async def swap(self, request: Request) -> Response:
        """GET: how the swap of this model goes; POST {"path": FILE, "classes": {NEW: OLD}} begins one."""
        name = request.path_params["name"]
        orders = self._operable.orders
        if name not in orders.models():
            raise HTTPException(404, f"there is no model {name!r}; known: {', '.join(orders.models())}")
        if request.method == "POST":
            refuse_unless(request, self._operable.can_swap, "server.can_swap")
            path, classes = _swap_order(await json_body(request))
            tell_more(request, file=path)
            _order(lambda: orders.order_swap(name, path, classes))
            return JsonAnswer(orders.swap_state(name), 202)
        return JsonAnswer(orders.swap_state(name))

    async def reload(self, request: Request) -> Response:
        """POST makes the daemon read its configuration file again; /api/stats says what came of it."""
        refuse_unless(request, self._operable.can_reload, "server.can_reload")
        _order(self._operable.orders.order_reload)
        return JsonAnswer({"ordered": "reload"}, 202)


def refuse_unless(request: Request, is_allowed: bool, key: str, camera: str | None = None) -> None:
    """Answer 403 to who may not operate, and where this key of the configuration is not set.

    Args:
        request: that is asked.
        is_allowed: whether the configuration has the key.
        key: of the configuration.
        camera: that it is about; None: all of them.
    """
    refuse_unless_role(request, "operate", camera)
    if not is_allowed:
        needed = key if " = " in key else f"{key} = true"
        raise HTTPException(403, f"this is switched off; {needed} in the configuration allows it")


def _order(act: Any) -> None:
    try:
        act()
    except EdgeError as error:
        raise HTTPException(409, str(error)) from None


async def json_body(request: Request) -> Any:
    """The JSON value of a small request that comes in time."""
    data = await read_small(request, MAX_BODY_BYTES, "request")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "expected a JSON object") from None


def refuse_unless_json(request: Request) -> None:
    """Refuse a body of another type: those are what a page elsewhere can make a browser send without asking."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise HTTPException(415, f"expected content-type: {JSON}")


def _swap_order(body: Any) -> tuple[str, dict[str, str]]:
    path = body.get("path") if isinstance(body, dict) else None
    classes = body.get("classes", {}) if isinstance(body, dict) else None
    if not isinstance(path, str) or "\0" in path or len(path) > 255:
        raise HTTPException(400, 'expected {"path": FILE}, the name of a file next to the model that runs')
    if not isinstance(classes, dict) or len(classes) > MAX_CLASSES or not _is_texts(classes):
        raise HTTPException(400, 'expected "classes" to be an object of new names and old names')
    return path, classes


def _is_texts(table: dict[Any, Any]) -> bool:
    return all(isinstance(text, str) for pair in table.items() for text in pair)

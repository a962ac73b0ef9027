"""The API described as OpenAPI 3.1, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

_FLAG: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": 1}
_SPAN: Mapping[str, Mapping[str, Any]] = {"from": {"type": "number"}, "to": {"type": "number"}}
_FILTERS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"type": "string"} for name in ("streams", "kinds", "classes", "zones", "lines", "labels")},
    "from": {"type": "number"},
    "to": {"type": "number"},
    "seen": {"type": "integer", "minimum": 0, "maximum": 1},
}
QUERY: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "/stream/{name}.mjpeg": {"fps": {"type": "number", "minimum": 0, "maximum": 240}},
    "/api/feed": {
        "streams": {"type": "string"},
        "fps": {"type": "number", "minimum": 0, "maximum": 240},
        "seen": {"type": "string"},
        "pictures": {"type": "integer", "minimum": 0, "maximum": 1},
        "plain": {"type": "integer", "minimum": 0, "maximum": 99_999},
    },
    "/stream/{name}/whep": {"plain": {"type": "integer", "minimum": 0, "maximum": 1}},
    "/api/events": {"streams": {"type": "string"}},
    "/api/recordings": {"streams": {"type": "string"}, "from": {"type": "number"}, "to": {"type": "number"}},
    "/api/history": {"streams": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 500}},
    "/api/review": {
        **_FILTERS,
        "limit": {"type": "integer", "minimum": 1, "maximum": 200},
        "before": {"type": "string", "pattern": r"^\d{1,19}-\d{1,19}$"},
    },
    "/api/review/density": {**_FILTERS, "buckets": {"type": "integer", "minimum": 1, "maximum": 2000}},
    "/api/export/{name}": _SPAN,
    "/export/{name}.mp4": {**_SPAN, "download": _FLAG},
    "/lapse/{name}.mp4": {**_SPAN, "download": _FLAG, "seconds": {"type": "number", "minimum": 1, "maximum": 300}},
    "/snooze": {"k": {"type": "string", "maxLength": 1500}, "hours": {"enum": ["0", "1", "8"]}},
    "/recordings/{name}/{file}": {"download": {"type": "integer", "minimum": 0, "maximum": 1}},
}
_SHAPES = {"type": "array", "maxItems": 100, "items": {"type": "object", "required": ["name", "points_share"]}}
BODIES: Mapping[str, Mapping[str, Any]] = {
    "/api/streams/{name}/drawn": {
        "type": "object",
        "required": ["version"],
        "properties": {
            "version": {"type": "string"},
            "lines": _SHAPES,
            "zones": _SHAPES,
            "masks": {"type": "array", "maxItems": 100, "items": {"type": "array", "minItems": 3}},
            "score": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        },
    },
    "/api/questions": {
        "type": "object",
        "required": ["ask", "stream"],
        "properties": {
            "ask": {"enum": ["why", "what-if", "test"]},
            "stream": {"type": "string"},
            "at": {"type": "number"},
            "within_s": {"type": "number", "minimum": 0.1, "maximum": 60},
            "part": {"type": "string", "maxLength": 64},
            "kind": {"type": "string", "maxLength": 64},
            "drawn": {"type": "object"},
            "hours": {"type": "number", "maximum": 744},
            "file": {"type": "string", "maxLength": 255},
            "around_s": {"type": "number", "minimum": 1, "maximum": 60},
            "name": {"type": "string", "maxLength": 64},
        },
    },
    "/api/questions/{id}": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    "/api/review/seen": {
        "type": "object",
        "required": ["seen"],
        "properties": {
            "seen": {"type": "boolean"},
            "ids": {"type": "array", "maxItems": 200, "items": {"type": "string"}},
            "query": {"type": "string", "maxLength": 4096},
        },
    },
    "/api/streams/{name}/presets": {
        "type": "object",
        "required": ["preset"],
        "properties": {"preset": {"type": "string", "minLength": 1, "maxLength": 200}},
    },
    "/api/push": {
        "type": "object",
        "required": ["endpoint"],
        "properties": {
            "endpoint": {"type": "string", "maxLength": 1000},
            "keys": {"type": "object", "required": ["p256dh", "auth"]},
            "name": {"type": "string", "maxLength": 64},
        },
    },
    "/api/config/versions": {"type": "object", "required": ["restore"], "properties": {"restore": {"type": "string"}}},
    "/api/models/{name}/swap": {
        "type": "object",
        "required": ["path"],
        "properties": {
            "path": {"type": "string", "maxLength": 255},
            "classes": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
STATES = {
    "200": "as described",
    "201": "the answer; the location ends it",
    "202": "ordered",
    "206": "the part that was asked for",
    "303": "here is a cookie for the token",
    "400": "the request makes no sense",
    "401": "a token is needed",
    "403": "the token does not allow this, or the configuration does not",
    "404": "there is no such stream or model",
    "405": "not with this method",
    "408": "the request came too slowly",
    "409": "not now; the text says why",
    "413": "the request is too large",
    "415": "not this content type",
    "421": "not under this name without a token",
    "429": "too many wrong tokens",
    "501": "this device cannot; the text says why",
    "503": "nothing to give yet, or too many ask",
}


def openapi_of(overview: Mapping[str, str], methods: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The document.

    Args:
        overview: path → what it gives.
        methods: path → GET, POST.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "Edgeloop", "version": version("edgeloop")},
        "paths": {
            path: {method.lower(): _operation(path, method, words) for method in methods[path]}
            for path, words in overview.items()
        },
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
    }


def _operation(path: str, method: str, words: str) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in QUERY.get(path, {}).items()]
    operation: dict[str, Any] = {
        "summary": words,
        "parameters": parameters,
        "responses": {code: {"description": text} for code, text in STATES.items()},
    }
    if path.endswith("/whep"):
        operation["requestBody"] = {"required": True, "content": {"application/sdp": {"schema": {"type": "string"}}}}
    if (method in ("POST", "PUT") or (path == "/api/push" and method == "DELETE")) and path in BODIES:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": BODIES[path]}}}
    return operation

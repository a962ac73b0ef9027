"""Pages of the docs site that are made from the code: every key of edge.toml, and every route of the HTTP API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
RULE = re.compile(r"(?m)^# -{20,}\n")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs when it knows the pages that are files."""
    for name, text in (("configuration", configuration()), ("http-api", http_api())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def configuration() -> str:
    """The shipped edge.toml, part by part: it explains every key, which a test sees to."""
    head, *parts = RULE.split((ROOT / "systemd" / "edge.toml").read_text(encoding="utf-8"))
    intro = "\n".join(line.removeprefix("# ").removeprefix("#") for line in head.splitlines() if line.startswith("#"))
    text = f"# Configuration\n\n{intro}\n\nKeys without a `#` in front are set in the shipped file.\n"
    for part in parts:
        title = re.search(r"(?m)^(?:# )?\[+([\w.]+)\]+", part)
        text += f"\n## {title[1] if title else 'Top'}\n\n```toml\n{part.strip()}\n```\n"
    return text


def http_api() -> str:
    """A table of all routes, with what they take, as a running daemon describes them."""
    paths = openapi()["paths"]
    text = (
        "# HTTP API\n\nWhere there is a `token_file`, every request but `/healthz` needs the token, as "
        "`Authorization: Bearer …`. `/api/openapi.json` of a running daemon gives the same for programs.\n\n"
        "| route | methods | what |\n|---|---|---|\n"
    )
    inputs = ""
    for path, methods in paths.items():
        operation = next(iter(methods.values()))
        names = ", ".join(method.upper() for method in methods)
        text += f"| `{path}` | {names} | {operation['summary']} |\n"
        for parameter in operation["parameters"]:
            if parameter["in"] == "query":
                inputs += f"| `{path}` | `?{parameter['name']}=` | {_words(parameter['schema'])} |\n"
        bodies = [method["requestBody"]["content"] for method in methods.values() if "requestBody" in method]
        for name, schema in bodies[0].get("application/json", {}).get("schema", {}).items() if bodies else ():
            if name == "properties":
                for key, kind in schema.items():
                    inputs += f"| `{path}` | `{key}` of the JSON body | {_words(kind)} |\n"
    return f"{text}\n## What they take\n\n| route | name | |\n|---|---|---|\n{inputs}"


def openapi() -> Any:
    """What a daemon that allows everything says of itself."""
    from starlette.testclient import TestClient

    from edge.server.access import Access
    from edge.server.accounts import Accounts
    from edge.server.app import Facts, build_app
    from edge.server.board import LiveBoard
    from edge.server.operate import Operable
    from edge.server.recordings import Archive

    board = LiveBoard()
    nobody: Any = SimpleNamespace()
    hub: Any = SimpleNamespace(board=board)
    facts = Facts(board, dict, lambda: None, lambda _: None, peers=nobody)
    app = build_app(hub, facts, Accounts(Access()), Operable(nobody, editor=nobody), Archive(dict, messages=nobody))
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        return client.get("/api/openapi.json").json()


def _words(schema: Mapping[str, Any]) -> str:
    limits = [f"{key} {schema[key]}" for key in ("minimum", "maximum", "maxLength", "maxItems") if key in schema]
    return ", ".join([str(schema.get("type", "")), *limits])

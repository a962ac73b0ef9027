"""``edge check``: try a configuration without running it: files, sources, one batch, memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.commands.console import AsJson, out, print_json
from edge.errors import ConfigError, EdgeError, UsageError


def check(
    config: Annotated[Path | None, typer.Argument(help="A TOML file such as systemd/edge.toml.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the file and end.")] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the file to this version, show the difference and end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Validate a configuration: files, sources, one batch."""
    from edge.config import Config, load_config
    from edge.daemon.credentials import with_secrets

    if schema:
        typer.echo(json.dumps(Config.model_json_schema(), indent=2))
        return
    if config is None:
        raise UsageError("expected a configuration file; run: edge check edge.toml")
    if migrate:
        _migrate(config)
        return
    loaded = with_secrets(load_config(config))
    rows = [_check_model(loaded, model) for model in loaded.models]
    rows += [_check_stream(stream) for stream in loaded.streams]
    if as_json:
        print_json(rows)
    else:
        _print(rows)
    failed = [row for row in rows if row["result"] != "ok"]
    if failed:
        raise ConfigError(
            f"{config.name}: {len(failed)} of {len(rows)} checks failed; the first: {failed[0]['detail']}"
        )


def _migrate(path: Path) -> None:
    from edge.config_migrations import migrate
    from edge.files import write_atomic

    try:
        migrated = migrate(path.read_text())
        if migrated.diff:
            mode = path.stat().st_mode
            write_atomic(path.with_name(path.name + ".old"), path.read_bytes())
            path.with_name(path.name + ".old").chmod(mode)
            write_atomic(path, migrated.text)
            path.chmod(mode)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read or written ({error})") from None
    typer.echo(migrated.diff or f"{path.name} is of this version already")


def _check_model(loaded: Any, model: Any) -> dict[str, str]:
    import numpy as np

    from edge.model import check_finite, load_model

    row = {"kind": "model", "name": model.name, "what": str(model.path)}
    try:
        opened = load_model(model.model_copy(update={"max_batch": 1}))
        try:
            check_finite(opened, np.full((720, 1280, 3), 114, np.uint8))
            spec = opened.manifest.input
            detail = f"{opened.manifest.head}, {spec.width}x{spec.height}, {opened.engine.name}"
        finally:
            opened.close()
    except EdgeError as error:
        return {**row, "result": "failed", "detail": str(error)}
    return {**row, "result": "ok", "detail": detail}


def _check_stream(stream: Any) -> dict[str, str]:
    from edge.secrets import redacted
    from edge.sources.choose import open_source
    from edge.uris import masked

    row = {"kind": "stream", "name": stream.name, "what": masked(stream.source)}
    try:
        source = open_source(stream.source)
        try:
            source.read()
        finally:
            source.close()
    except EdgeError as error:
        return {**row, "result": "failed", "detail": redacted(str(error))}
    info = source.info
    mode = "every frame" if stream.is_lossless else f"newest frame, at most {stream.max_age_ms:g} ms old"
    return {**row, "result": "ok", "detail": f"{info.width}x{info.height}, {info.fps:g} fps, {info.decoder}, {mode}"}


def _print(rows: list[dict[str, str]]) -> None:
    from rich.table import Table

    table = Table("", "name", "what", "result", "detail", box=None, pad_edge=False)
    for row in rows:
        colour = "green" if row["result"] == "ok" else "red"
        table.add_row(row["kind"], row["name"], row["what"], f"[{colour}]{row['result']}[/{colour}]", row["detail"])
    out.print(table)

"""``edge check``: try a configuration without running it: files, sources, one batch, memory."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.check_ends import check_ends, tried
from edge.console import AsJson, out, print_json
from edge.errors import ConfigError, EdgeError, UsageError

if TYPE_CHECKING:
    from edge.config.picture import PtzSettings
    from edge.config.schema import Config, ModelSettings, StreamSettings
    from edge.interfaces import CameraSource
    from edge.models.manifest import Manifest
    from edge.second_stage.models import CropModels


def check(
    config: Annotated[Path | None, typer.Argument(help="A TOML file, such as edge init writes.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the file and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a configuration: sources, models, brokers, folders, memory."""
    from edge.config.load import load_config
    from edge.config.schema import Config
    from edge.daemon.credentials import with_secrets
    from edge.daemon.workers.deal import check_workers

    if schema:
        typer.echo(json.dumps(Config.model_json_schema(), indent=2))
        return
    if config is None:
        raise UsageError("expected a configuration file; run: edge check edge.toml")
    loaded = with_secrets(load_config(config))
    num_workers = check_workers(loaded)
    tried = {model.name: _check_model(model) for model in loaded.models}
    rows = [row for row, _ in tried.values()]
    crops, crop_rows = _check_crops(loaded)
    rows += crop_rows
    rows += [_check_stream(stream, loaded, tried[loaded.model_of(stream).name][1], crops) for stream in loaded.streams]
    for key in ("record_source", "live_source"):
        found = [(stream, getattr(stream, key)) for stream in loaded.streams]
        rows += [_check_other(key, address, stream, loaded) for stream, address in found if address is not None]
    rows += [_check_turning(stream, stream.ptz) for stream in loaded.streams if stream.ptz is not None]
    if crops is not None:
        crops.stop(time.monotonic())
    rows += check_ends(loaded)
    manifests = {name: manifest for name, (_, manifest) in tried.items() if manifest}
    rows.append(_check_memory(loaded, manifests, num_workers))
    if as_json:
        print_json(rows)
    else:
        _print(rows)
    failed = [row for row in rows if row["result"] != "ok"]
    if failed:
        raise ConfigError(
            f"{config.name}: {len(failed)} of {len(rows)} checks failed; the first: {failed[0]['detail']}"
        )


def _check_model(model: ModelSettings) -> tuple[dict[str, str], Manifest | None]:
    """The row of a model, and its manifest where it can be used."""
    import numpy as np

    from edge.model import load_model
    from edge.models.checks import check_outputs

    row = {"kind": "model", "name": model.name, "what": str(model.path)}
    try:
        opened = load_model(model.model_copy(update={"max_batch": 1}))
        try:
            opened.predict([np.full((720, 1280, 3), 114, np.uint8)], check_outputs)
            spec = opened.manifest.input
            detail = f"{opened.manifest.head}, {spec.width}x{spec.height}, {opened.engine.name}"
        finally:
            opened.close()
    except EdgeError as error:
        return {**row, "result": "failed", "detail": str(error)}, None
    return {**row, "result": "ok", "detail": detail}, opened.manifest


def _check_crops(loaded: Config) -> tuple[CropModels | None, list[dict[str, str]]]:
    """The models that look at objects, None where one cannot be used; and a row that says why."""
    from edge.second_stage.models import CropModels

    try:
        return CropModels(loaded), []
    except EdgeError as error:
        row = {"kind": "model", "name": "second stage", "what": "models that look at objects"}
        return None, [{**row, "result": "failed", "detail": str(error)}]


def _check_stream(
    stream: StreamSettings, loaded: Config, manifest: Manifest | None, crops: CropModels | None
) -> dict[str, str]:
    """The row of a stream; what it watches is tried where its model could be used."""
    from edge.addresses.secrets import redacted
    from edge.addresses.uris import masked
    from edge.analytics.checks import check_settings
    from edge.pipeline.build import analysis_of

    row = {"kind": "stream", "name": stream.name, "what": masked(stream.source)}
    try:
        source = _open(stream, loaded)
        try:
            source.read()
        finally:
            source.close()
        info = source.info
        if manifest is not None:
            _try_parts(stream, manifest)
            check_settings(
                stream.analytics,
                stream=stream.name,
                classes=manifest.classes,
                width=info.width,
                height=info.height,
                model_anchors=manifest.anchors,
            )
            if crops is not None:
                analysis_of(stream, loaded.model_of(stream), manifest, crops)
    except EdgeError as error:
        return {**row, "result": "failed", "detail": redacted(str(error))}
    mode = "every frame" if stream.is_lossless else f"newest frame, at most {stream.max_age_ms:g} ms old"
    return {**row, "result": "ok", "detail": f"{info.width}x{info.height}, {info.fps:g} fps, {info.decoder}, {mode}"}


def _check_other(key: str, address: str, stream: StreamSettings, loaded: Config) -> dict[str, str]:
    """Whether another picture of the camera can be opened: that of this key."""
    from edge.addresses.secrets import redacted
    from edge.addresses.uris import masked
    from edge.pipeline.build import deadlines_of
    from edge.sources.choose import open_packets
    from edge.sources.direct import Decoding
    from edge.sources.isolation.process import SpareChild
    from edge.video.packets import PacketQueue

    row = {"kind": key, "name": stream.name, "what": masked(address)}
    try:
        source = open_packets(
            address,
            PacketQueue(),
            decoding=Decoding("av", stream.transport),
            is_stopping=lambda: False,
            deadlines=deadlines_of(stream, loaded),
            spare=SpareChild(),
            allow_hosts=stream.allow_hosts,
        )
    except EdgeError as error:
        return {**row, "result": "failed", "detail": redacted(str(error))}
    info = source.info
    source.close()
    return {**row, "result": "ok", "detail": f"{info.width}x{info.height}, {info.fps:g} fps, {info.decoder}"}


def _check_turning(stream: StreamSettings, ptz: PtzSettings) -> dict[str, str]:
    """Whether a camera that turns has the presets that are asked of it."""
    from edge.daemon.turning import place_of
    from edge.onvif.ptz import presets_of

    url, login = place_of(stream, ptz)

    def attempt() -> str:
        names = [preset.name for preset in presets_of(url, login)]
        asked = (ptz.home, *(rule.preset for rule in ptz.on_event))
        missing = next((name for name in asked if name not in names), None)
        if missing is not None:
            raise ConfigError(f"the camera has no preset {missing!r}; known: {', '.join(names[:20]) or 'none'}")
        return f"{len(names)} presets, home {ptz.home!r}"

    return tried("presets", stream.name, url, attempt)


def _try_parts(stream: StreamSettings, manifest: Manifest) -> None:
    """Open the tracker and the stages that installed packages bring, and close them.

    Raises:
        EdgeError: one cannot be opened.
    """
    from edge.pipeline.guarded import close_all, open_stages
    from edge.trackers.choose import is_plugin, open_tracker

    if is_plugin(stream.track.method):
        open_tracker(stream.track.method)
    close_all(open_stages(stream.stages, stream=stream.name, classes=manifest.classes))


def _check_memory(loaded: Config, manifests: Mapping[str, Manifest], num_workers: int) -> dict[str, str]:
    """The row of the memory plan: the most that the daemon can need, by stream and model, against the budget."""
    from edge.daemon.workers.deal import has_spare
    from edge.pipeline.memory_plan import plan_memory

    plan = plan_memory(loaded, manifests, num_workers + (num_workers > 0 and has_spare(loaded)))
    budget = (
        "no budget: pictures above 1920x1080 take more"
        if loaded.memory_budget_mb is None
        else f"budget {loaded.memory_budget_mb:g} MB"
    )
    row = {"kind": "memory", "name": "plan", "what": budget}
    try:
        plan.refuse_over(loaded.memory_budget_mb)
    except EdgeError as error:
        return {**row, "result": "failed", "detail": str(error)}
    parts = sorted(plan.by_owner().items(), key=lambda part: -part[1])
    named = ", ".join(f"{owner} {mb:.0f}" for owner, mb in parts)
    return {**row, "result": "ok", "detail": f"{plan.total_mb:.0f} MB at most: {named}"}


def _open(stream: StreamSettings, loaded: Config) -> CameraSource:
    """The source as the daemon opens it: decoded, isolated and prepared as configured."""
    from edge.pipeline.build import deadlines_of, preparation_of
    from edge.sources.choose import open_source
    from edge.sources.direct import Decoding
    from edge.video.packets import PacketQueue

    takes_packets = stream.record is not None and stream.record.content == "source"
    return open_source(
        stream.source,
        decoding=Decoding(stream.decoder, stream.transport, stream.hardware, stream.hardware_device),
        preparation=preparation_of(stream, loaded),
        deadlines=deadlines_of(stream, loaded),
        is_isolated=None if stream.isolation == "auto" else stream.isolation == "process",
        allow_hosts=stream.allow_hosts,
        packets=PacketQueue() if takes_packets else None,
    )


def _print(rows: list[dict[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "name", "what", "result", "detail", box=None, pad_edge=False)
    for row in rows:
        colour = "green" if row["result"] == "ok" else "red"
        table.add_row(row["kind"], row["name"], row["what"], Text(row["result"], colour), row["detail"])
    out.print(table)

"""``edge probe``: what a source is, what it really delivers, and a picture of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, out, print_json


def probe(
    uri: Annotated[str, typer.Argument(help="Camera number, file, folder, rtsp://…, synthetic://street.")],
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Whom the camera may send us on to besides itself; * for everybody.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to watch.")] = 3.0,
    snapshot: Annotated[Path | None, typer.Option(help="Write the last picture here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a source is: size, measured rate, decoder."""
    import cv2

    from edge.addresses.secrets import register_uri
    from edge.addresses.uris import masked
    from edge.errors import SinkError
    from edge.files import atomic_path
    from edge.sources.choose import open_source

    register_uri(uri)
    started = time.monotonic()
    source = open_source(uri, allow_hosts=allow_host or ())
    opened_s = time.monotonic() - started
    count, image = 0, None
    try:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            picture = source.read()
            if picture is None:
                break
            image, count = picture[0], count + 1
        spent_s = max(1e-9, time.monotonic() - began)
    finally:
        source.close()
    facts = {
        "source": masked(uri),
        "width": source.info.width,
        "height": source.info.height,
        "decoder": source.info.decoder,
        "is_live": source.info.is_live,
        "num_frames": source.info.num_frames,
        "declared_fps": round(source.info.fps, 3),
        "measured_fps": round(count / spent_s, 2),
        "frames_read": count,
        "open_s": round(opened_s, 3),
    }
    if snapshot is not None and image is not None:
        try:
            with atomic_path(snapshot) as temporary:
                cv2.imwrite(str(temporary), image)
        except (OSError, cv2.error) as error:
            raise SinkError(
                f"{snapshot}: the picture cannot be written ({error}); expected a path such as x.jpg"
            ) from None
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        out.print(f"  {name:13} {value}")

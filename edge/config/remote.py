"""What a user may write in TOML about a model that runs on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edge.config.section import Section


class RemoteSettings(Section):
    """How the server of a model is spoken to.

    Attributes:
        timeout_ms: the most that a batch may take; beyond it the server counts as away. Not above ``max_age_ms`` of the
            model's streams.
        hedge: whether a batch that takes much longer than others is sent a second time, and the first answer taken.
        shared_memory: pictures and answers go through shared memory; ``auto``: where the server is on this machine and
            offers it.
        ca_file: who signed the server's certificate (``grpcs://``); None: those that gRPC trusts.
        token_file: what the server wants to see, as ``authorization: Bearer …``; a file of one line.
    """

    timeout_ms: float = Field(default=500, gt=0, le=60_000)
    hedge: bool = True
    shared_memory: Literal["auto", "off"] = "auto"
    ca_file: Path | None = None
    token_file: Path | None = None


def check_remote(url: str | None, engine: str, remote: RemoteSettings | None, fallback: str | None) -> None:
    """Raises: ValueError: keys of a model on a server without one, or the other way round."""
    if (engine == "kserve") != (url is not None):
        raise ValueError('engine = "kserve" and url = "grpc://HOST:PORT" are expected together')
    if url is None and (remote is not None or fallback is not None):
        raise ValueError('remote and fallback are for a model on a server: engine = "kserve", url = "grpc://…"')
    is_sealed = url is not None and url.startswith("grpcs://")
    if remote is not None and not is_sealed and (remote.ca_file is not None or remote.token_file is not None):
        raise ValueError('ca_file and token_file need an encrypted connection: url = "grpcs://HOST:PORT"')

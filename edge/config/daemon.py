"""What a user may write in TOML about the daemon itself: its log, its server, swapping models and keeping cool."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from edge.addresses.networks import is_loopback
from edge.config.section import Section


class LogSettings(Section):
    """How the daemon talks. ``--debug`` and ``--quiet`` win over ``level``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["text", "json"] = "text"


# whose values come from the browser
TAKEN_HEADERS = {
    *("host", "cookie", "authorization", "origin", "sec-fetch-site", "x-forwarded-for", "x-forwarded-proto"),
    *("content-length", "content-type", "connection", "accept", "user-agent", "referer"),
}


class ServerSettings(Section):
    """The live page and API. Nothing listens unless ``enabled``.

    Attributes:
        allow_anyone: whether other machines may look without a token, where ``host`` lets them.
        token_file: who has it may operate: everything that the API offers.
        view_token_file: who has it may look.
        users_file: named users with passwords or tokens, and roles per camera: ``edge users``.
        session_idle_h, session_max_days: a login ends after so long without a request, and after so long at any rate.
        audit_file: who changed what and looked at which recording; None: ``audit.jsonl`` in ``state_dir`` where there
            are users.
        audit_mb: what is kept of it.
        user_header: in which a trusted proxy names the user that has logged in there.
        trusted_proxies: their addresses or networks.
        tls_cert_file, tls_key_file: PEM files; with them the server speaks HTTPS only.
        max_peers: the most WebRTC viewers at once; 0: pictures as JPEG only. Needs the extra ``webrtc``.
        can_reload, can_swap: whether the API may make the daemon read its file again, or change a model.
        can_edit: whether what is drawn on the page, the score, and cameras added there may be saved in the file.
        can_add_tests: whether recordings may be made clip tests from the page.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    allow_anyone: bool = False
    token_file: Path | None = None
    view_token_file: Path | None = None
    users_file: Path | None = None
    session_idle_h: float = Field(default=24, gt=0, le=24 * 366)
    session_max_days: float = Field(default=14, gt=0, le=366)
    audit_file: Path | None = None
    audit_mb: float = Field(default=16, ge=0.1, le=10_000)
    user_header: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,64}$")
    trusted_proxies: tuple[str, ...] = ()
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    max_peers: int = Field(default=16, ge=0, le=256)
    can_reload: bool = False
    can_swap: bool = False
    can_edit: bool = False
    can_add_tests: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> ServerSettings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file are expected together")
        if self.view_token_file is not None and self.token_file is None:
            raise ValueError("view_token_file is set, so token_file is expected too: else everybody could operate")
        can_do = self.can_reload or self.can_swap or self.can_edit or self.can_add_tests
        is_closed = self.token_file is not None or self.users_file is not None
        if can_do and not is_closed:
            raise ValueError(
                "can_reload, can_swap, can_edit and can_add_tests need a token_file: nobody may operate without a token"
            )
        if self.allow_anyone and is_closed:
            key = "token_file" if self.token_file is not None else "users_file"
            raise ValueError(f"allow_anyone = true and a {key} contradict each other; leave one of them out")
        self._check_proxies()
        if self.enabled and not is_closed and not (self.allow_anyone or is_loopback(self.host)):
            raise ValueError(
                f"host = {self.host!r} lets other machines see the cameras, so a token_file is expected; "
                "write allow_anyone = true if everybody may look"
            )
        return self

    def _check_proxies(self) -> None:
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(
                    f"trusted_proxies: expected addresses or networks such as 10.0.0.0/30, found {network!r}"
                ) from None
        if self.user_header and not (self.trusted_proxies and self.users_file):
            raise ValueError(
                "user_header is set, so trusted_proxies and a users_file are expected too: which proxies are believed, "
                "and what the users that they name may do"
            )
        if self.user_header.lower() in TAKEN_HEADERS:
            raise ValueError(f"user_header = {self.user_header!r} has another meaning; expected one of the proxy's own")


class RtspSettings(Section):
    """The streams as RTSP addresses, for other programs. Nothing listens unless ``enabled``.

    The tokens are those of ``server``: a client shows one as its password (Digest), with any user name.

    Attributes:
        max_clients: the most that are sent pictures at once.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=8554, ge=0, le=65535)
    max_clients: int = Field(default=64, ge=1, le=1024)


class SwapSettings(Section):
    """When a new model may take over from one that runs.

    Attributes:
        shadow_frames: live frames that both models see before.
        shadow_timeout_s: how long that may take; cameras that give nothing end the swap.
        min_agreement: least share of the found objects (or picture parts) on which both must agree, 0 to 1.
        max_slowdown: how many times as long as the old model the new one may take for a frame.
        probation_s: so long the old model stays at hand; any failure of the new one brings it back.
        trial_timeout_s: how long loading and the golden frames may take, in a process of their own.
    """

    shadow_frames: int = Field(default=50, ge=0, le=100_000)
    shadow_timeout_s: float = Field(default=60, gt=0, le=3600)
    min_agreement: float = Field(default=0.5, ge=0, le=1)
    max_slowdown: float = Field(default=3, gt=0, le=1000)
    probation_s: float = Field(default=30, ge=0, le=86_400)
    trial_timeout_s: float = Field(default=120, gt=0, le=3600)


class ClipTestSettings(Section):
    """Clips that must be seen as before, before anything new takes over: ``edge test``.

    Attributes:
        folder: a folder per test.
        timeout_s: how long all of them may take.
        on_start: what a start does with another version, model or configuration that loses something: ``tell`` it,
            for a camera that is watched worse is better than one that is not, or ``refuse``.
        rehearse: whether recordings of the last hours are run through what runs and what shall take over, and what
            follows where something is lost.
        rehearse_hours, rehearse_s: how far back, and how long it may look.
    """

    folder: Path
    timeout_s: float = Field(default=600, gt=0, le=86_400)
    on_start: Literal["refuse", "tell"] = "tell"
    rehearse: Literal["off", "tell", "refuse"] = "off"
    rehearse_hours: float = Field(default=24, gt=0, le=24 * 365)
    rehearse_s: float = Field(default=120, gt=0, le=86_400)


class WatchLogSettings(Section):
    """What was watched and what was not, second by second, chained and signed: ``edge certify``.

    Attributes:
        flush_s: so often it is signed and brought to the disk; what a kill can cost.
        max_age_days, max_mb: what is kept of each stream; the oldest hours go first.
    """

    flush_s: float = Field(default=10, ge=0.2, le=3600)
    max_age_days: float = Field(default=90, gt=0, le=3650)
    max_mb: float = Field(default=512, ge=1, le=1_000_000)


class GovernorSettings(Section):
    """Doing less while the device is too hot or draws too much, so that it need not throttle by itself.

    Attributes:
        enabled: off unless asked for.
        hot_c, cool_c: above the first it does less, below the second it does more again; degrees Celsius.
        max_power_w: the same for power; None: power does not matter. It does more again below nine tenths of it.
        min_fps: no stream is held below this rate.
        period_s: between two decisions.
    """

    enabled: bool = False
    hot_c: float = Field(default=85, ge=30, le=120)
    cool_c: float = Field(default=78, ge=20, le=119)
    max_power_w: float | None = Field(default=None, gt=0, le=2000)
    min_fps: float = Field(default=2, gt=0, le=240)
    period_s: float = Field(default=5, ge=0.05, le=600)

    @model_validator(mode="after")
    def _has_hysteresis(self) -> GovernorSettings:
        if self.cool_c >= self.hot_c:
            raise ValueError(f"cool_c = {self.cool_c:g} is expected to lie below hot_c = {self.hot_c:g}")
        return self

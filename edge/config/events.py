"""What a user may write in TOML about events: the outbox, MQTT, webhooks and messages to people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge.config.analytics import ScheduleSettings
from edge.config.section import Section

# where the browsers' makers take messages: Chrome, Edge, Firefox, Safari
PUSH_HOSTS = ("fcm.googleapis.com", "*.notify.windows.com", "*.push.services.mozilla.com", "*.push.apple.com")
TargetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="letters, digits, - and _")]
Topic = Annotated[str, Field(pattern=r"^[^#+\x00/][^#+\x00]{0,199}$", description="no # and +, no leading /")]


class EventSettings(Section):
    """Where events are kept until every target has them.

    Attributes:
        outbox: the SQLite file; None: ``events.db`` in ``state_dir``.
        max_mb: the most that the file may take; the oldest events go first.
        max_age_days: older events go, delivered or not.
        snapshots: a folder for a JPEG of the annotated picture of every event; None: no pictures.
        max_snapshots_mb: the most that these pictures may take; the oldest go first.
        review_days, review_events: how long, and how many, events can be found again on the page; they lie in
            ``events.review.db`` next to the outbox and take 400 bytes each, and 33 bytes of memory.
    """

    outbox: Path | None = None
    max_mb: float = Field(default=64, ge=1, le=1_000_000)
    max_age_days: float = Field(default=14, gt=0, le=3650)
    snapshots: Path | None = None
    max_snapshots_mb: float = Field(default=256, ge=1, le=1_000_000)
    review_days: float = Field(default=30, gt=0, le=3650)
    review_events: int = Field(default=1_000_000, ge=1_000, le=10_000_000)


class MqttSettings(Section):
    """An MQTT broker that gets every event. The password is read from its file at every connection.

    Attributes:
        topic: prefix; events go to ``TOPIC/STREAM/events``, ``online`` or ``offline`` to ``TOPIC/status``.
        discovery: topic prefix of Home Assistant's discovery (``homeassistant``); None: no discovery.
        commands: whether analysis and recording can be switched through the broker, at ``TOPIC/STREAM/analysis/set``
            and ``TOPIC/STREAM/recording/set``, by whoever may publish there.
    """

    name: TargetName = "mqtt"
    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    client_id: str | None = Field(default=None, min_length=1, max_length=128)
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    topic: Topic = "edge"
    discovery: Topic | None = None
    commands: bool = False
    timeout_s: float = Field(default=10, gt=0, le=300)
    backoff_base_s: float = Field(default=0.5, ge=0.05, le=60)
    backoff_cap_s: float = Field(default=30, ge=0.05, le=3600)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> MqttSettings:
        if not self.tls and (self.tls_ca_file or self.tls_cert_file or self.tls_key_file):
            raise ValueError("tls files are given, so tls = true is expected")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file are expected together")
        if self.password_file is not None and self.username is None:
            raise ValueError("a password_file needs a username")
        return self


class WebhookSettings(Section):
    """An address that gets every event by HTTP POST, signed where there is a secret."""

    name: TargetName = "webhook"
    url: str = Field(pattern=r"^https?://[^\s]+$")
    secret_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = Field(default=10, gt=0, le=300)
    backoff_base_s: float = Field(default=0.5, ge=0.05, le=60)
    backoff_cap_s: float = Field(default=60, ge=0.05, le=3600)


class NotifySettings(Section):
    """A person who is told what happened, through Apprise or on a phone: several events are one message.

    Attributes:
        url_file: a file with the service's Apprise address, in which its keys stand; read again for every message.
        push: in place of it: the phones and browsers that have asked for messages on the page (Web Push).
        contact: for ``push``: whom a push service may write to, ``mailto:…`` or ``https://…``; it is sent to it.
        push_hosts: servers that may be pushed to; ``*.NAME`` stands for all below NAME. Those that are not the
            browsers' makers' may be of this network.
        push_ca_file: the authority of their certificates; None: those that the system trusts.
        page_url: address of the page as the person reaches it, for the link to be left alone by this camera; None: no
            link. Phones need none.
        streams, kinds, classes: which events are told; empty: all. An event without an object has no class to ask for.
        neighbours: streams that see the same place: what happens there is told together.
        join_s: how long a message waits, after its first event, for others of the same place.
        cool_down_s: from one message about a place to the next; what happens meanwhile is told then.
        quiet: when nothing is sent; what happens meanwhile is told at its end, in one message for each place.
        picture: whether the picture of the first event is attached, where there is one.
        timeout_s: for a whole message.
        give_up_h: a message that nobody took for so long is given up.
    """

    name: TargetName = "notify"
    url_file: Path | None = None
    push: bool = False
    contact: Annotated[str, Field(pattern=r"^(mailto:|https://)[^\s]{3,200}$")] | None = None
    push_hosts: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9_.:\[\]-]+$")], ...] = PUSH_HOSTS
    push_ca_file: Path | None = None
    page_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")] | None = None
    streams: tuple[TargetName, ...] = ()
    kinds: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    neighbours: tuple[tuple[TargetName, ...], ...] = ()
    join_s: float = Field(default=5, ge=0, le=300)
    cool_down_s: float = Field(default=60, ge=0, le=86_400)
    quiet: tuple[ScheduleSettings, ...] = ()
    picture: bool = True
    timeout_s: float = Field(default=30, gt=0, le=300)
    give_up_h: float = Field(default=24, gt=0, le=8760)
    backoff_base_s: float = Field(default=1, ge=0.05, le=60)
    backoff_cap_s: float = Field(default=120, ge=0.05, le=3600)

    @model_validator(mode="after")
    def _is_one_kind(self) -> NotifySettings:
        if self.push == (self.url_file is not None):
            raise ValueError("expected either url_file, for a service of Apprise, or push = true, for phones")
        if self.push and self.contact is None:
            raise ValueError('push = true needs a contact, such as "mailto:you@example.org": push services ask for it')
        if not self.push and self.contact is not None:
            raise ValueError("contact is for push = true alone")
        return self

    @model_validator(mode="after")
    def _is_in_one_place(self) -> NotifySettings:
        streams = [stream for place in self.neighbours for stream in place]
        twins = sorted({stream for stream in streams if streams.count(stream) > 1})
        if twins:
            raise ValueError(f"neighbours: stream {twins[0]!r} is in two places; expected it in one")
        return self

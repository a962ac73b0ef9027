"""Roles per camera, and who a request comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["none", "view", "operate", "admin"]
# each may do what those before it may
ROLES: tuple[Role, ...] = ("none", "view", "operate", "admin")
# stands for every camera that is not named
ALL = "*"


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do with each camera.

    Attributes:
        roles: camera → role; that of ``*`` counts for cameras that are not named, without it none.
    """

    roles: Mapping[str, Role]

    def on(self, camera: str) -> Role:
        """The role on this camera."""
        return self.roles.get(camera) or self.roles.get(ALL, "none")

    def may(self, role: Role, camera: str) -> bool:
        """Whether the role on this camera is this one, or a higher one."""
        return ROLES.index(self.on(camera)) >= ROLES.index(role)

    def everywhere(self, role: Role) -> bool:
        """Whether this holds for every camera that there is or may come."""
        return min(ROLES.index(one) for one in (self.roles.get(ALL, "none"), *self.roles.values())) >= ROLES.index(role)

    def anywhere(self, role: Role) -> bool:
        """Whether this holds for some camera that there is or may come."""
        return any(ROLES.index(one) >= ROLES.index(role) for one in self.roles.values())

    def seen(self, cameras: Iterable[str]) -> list[str]:
        """Those that may be looked at."""
        return [camera for camera in cameras if self.may("view", camera)]


@dataclass(frozen=True, slots=True)
class Who:
    """Who a request comes from.

    Attributes:
        name: for people and the audit log.
        kind: everybody who reaches the port, a holder of one of the device's tokens, or a named user.
        rights: what it may do.
        session: the key of the session that it came with, empty without one.
        generation: of a named user; another one means that its logins are over.
        is_unasked: whether a browser or proxy shows who it is without being asked, so that other sites can use it.
    """

    name: str
    kind: Literal["anyone", "token", "user"]
    rights: Rights
    session: str = ""
    generation: str = ""
    is_unasked: bool = False

    @property
    def sees_all(self) -> bool:
        """Whether nothing needs to be left out of what it is told."""
        return self.rights.everywhere("view")


ANYONE = Who("anyone", "anyone", Rights({ALL: "view"}))

"""What the owner of a phone may see now, and whether there still is one. Asked from any thread."""

from __future__ import annotations

import threading
from pathlib import Path

from edge.events.phones import Owner
from edge.users.file import UsersFile
from edge.users.rights import ALL, Rights

EVERYTHING = Rights({ALL: "view"})


class PhoneOwners:
    """The named users, as they are in their file.

    Args:
        path: the file of users; None: there are none.
        has_others: whether somebody gets in who is no named user, and so may have a phone.
    """

    def __init__(self, path: Path | None = None, *, has_others: bool = True) -> None:
        self._users = None if path is None else UsersFile(path)
        self._has_others = has_others
        self._lock = threading.Lock()

    def may_see(self, owner: Owner, camera: str) -> bool:
        """Whether it may be told of this camera now."""
        rights, _ = self._looked_up(owner)
        return rights is not None and rights.may("view", camera)

    def is_gone(self, owner: Owner) -> bool:
        """Whether this user is not there any more; where the file cannot be read nobody knows."""
        rights, is_known = self._looked_up(owner)
        return rights is None and is_known

    def _looked_up(self, owner: Owner) -> tuple[Rights | None, bool]:
        """The rights, and whether that they are none is for good."""
        if not owner.name:
            return (EVERYTHING if self._has_others else None), True
        if self._users is None:
            return None, True
        with self._lock:
            user = self._users.users().get(owner.name)
            is_known = not self._users.problem
        is_same = user is not None and user.generation == owner.generation
        return (user.rights if user is not None and is_same else None), is_known

"""Who a request comes from, by what it shows: tokens, sessions, and what proxies vouch for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edge.server.access import Access, Credentials, session_in
from edge.server.proxies import Headers
from edge.users.file import User, UsersFile
from edge.users.rights import ALL, Rights, Who
from edge.users.sessions import key_of

# the user and the generation of a session's key; None where there is no such session
FindSession = Callable[[str], "tuple[str, str] | None"]


class Known:
    """Used in one thread, by the gate and by the server alike.

    Args:
        access: tokens, and what proxies may tell.
        users: None where there are none.
        find: of sessions.
    """

    def __init__(self, access: Access, users: UsersFile | None, find: FindSession) -> None:
        self._access = access
        self._users = users
        self._find = find

    def who(self, shown: Credentials) -> Who | None:
        """None where nothing that is shown is right.

        What is shown on purpose counts first; then whom a proxy vouches for, and nobody else where it does.
        """
        if shown.bearer and (role := self._access.role_of_token(shown.bearer)):
            return _holder(role)
        if shown.bearer and self._users is not None and (user := self._users.of_token(shown.bearer)):
            return _named(user)
        if shown.vouched:
            user = self._user(shown.vouched)
            return None if user is None else _named(user, is_unasked=True)
        if shown.session and (user := self._in_session(key_of(shown.session))):
            return _named(user, key_of(shown.session), is_unasked=True)
        role = self._access.role_of(shown)
        return None if role is None else _holder(role)

    def _user(self, name: str) -> User | None:
        return None if self._users is None else self._users.users().get(name)

    def _in_session(self, key: str) -> User | None:
        found = self._find(key)
        user = None if found is None else self._user(found[0])
        return user if user is not None and found is not None and user.generation == found[1] else None


def credentials(
    access: Access, headers: Headers, query: str, address: str, *, is_secure: bool
) -> tuple[Credentials, bool]:
    """What a request shows, and whether it names a user in the proxies' header without being one of them.

    Args:
        access: the configuration.
        headers: the values of a header by its name.
        query: of its address.
        address: that the connection comes from.
        is_secure: whether the browser speaks HTTPS.
    """
    vouched, is_spoofed = access.proxies.vouched(address, headers)
    authorization = (headers("authorization") or ("",))[0]
    # a browser may send its cookies in several headers
    cookies = "; ".join(headers("cookie"))
    session = session_in(cookies, is_secure=is_secure)
    return replace(Credentials.of(authorization, query, cookies), session=session, vouched=vouched), is_spoofed


def _holder(role: str) -> Who:
    return Who(f"{role} token", "token", Rights({ALL: "operate" if role == "operate" else "view"}))


def _named(user: User, session: str = "", *, is_unasked: bool = False) -> Who:
    return Who(user.name, "user", user.rights, session, user.generation, is_unasked)

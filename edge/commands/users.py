"""``edge users``: who may log in on the live page, and what they may do with which camera."""

from __future__ import annotations

import getpass
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.config.schema import Config
    from edge.users.file import User
    from edge.users.rights import Rights

ACTIONS = ("add", "list", "remove", "passwd", "roles", "end-sessions")
DEFAULT_CONFIG = Path("edge.toml")


def users(
    action: Annotated[str, typer.Argument(help=f"{', '.join(ACTIONS)}.")] = "list",
    name: Annotated[str, typer.Argument(help="Of the user.")] = "",
    role: Annotated[
        list[str] | None,
        typer.Option(help="view, operate or admin of all cameras, or CAMERA=ROLE, none too; several times."),
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="A new token instead of a password; it is shown once.")
    ] = False,
    vouched: Annotated[bool, typer.Option("--vouched", help="Neither: a proxy says who it is (user_header).")] = False,
    config: Annotated[Path, typer.Option("--config", help="The file that names server.users_file.")] = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Say who may log in, or change it; a running daemon follows."""
    from edge.config.load import load_config
    from edge.errors import ConfigError
    from edge.users.file import NAME, read_users

    if action not in ACTIONS or (action != "list" and not name):
        raise UsageError(
            f"edge users: expected list, or one of {', '.join(ACTIONS)} with a name; found {action} {name}"
        )
    if not NAME.fullmatch(name or "a"):
        raise UsageError("a name is expected to be of 1 to 64 letters, digits and . _ @ + -")
    loaded = load_config(config)
    path = loaded.server.users_file
    if path is None:
        raise ConfigError(f'{config}: it names no users; add users_file = "/var/lib/edge/users.json" to [server]')
    if action == "list":
        _list(read_users(path), as_json)
        return
    _change(path, loaded, action, name, rights_in(role), has_token=token, is_vouched=vouched)


def rights_in(roles: Sequence[str] | None) -> Rights | None:
    """``["view", "door=operate"]``; None without any. Raises: UsageError: one of them is no role."""
    from edge.users.file import rights_of
    from edge.users.rights import ALL

    if not roles:
        return None
    pairs = [one.rpartition("=") for one in roles]
    try:
        return rights_of({camera or ALL: role for camera, _, role in pairs}, "--role")
    except ValueError as error:
        raise UsageError(str(error)) from None


def _change(
    path: Path, config: Config, action: str, name: str, rights: Rights | None, *, has_token: bool, is_vouched: bool
) -> None:
    from edge.users.file import User, changed_users, token_hash
    from edge.users.rights import ALL, Rights

    # asked for before the file is held
    secret: dict[str, Any] = {}
    token = secrets.token_urlsafe(32) if has_token and action in ("add", "passwd") else ""
    if token:
        secret = {"token": token_hash(token)}
    elif action in ("add", "passwd") and not is_vouched:
        secret = {"password": _password()}
    with changed_users(path) as known:
        if (name in known) == (action == "add"):
            words = "is there already; change it with passwd or roles" if name in known else "is no user"
            raise UsageError(f"{name} {words}; the users are: {', '.join(known) or 'none'}")
        if action == "remove":
            del known[name]
        elif action == "roles":
            if rights is None:
                raise UsageError("expected --role, such as --role view or --role door=operate")
            known[name] = replace(known[name], rights=rights)
        else:
            user = known.get(name) or User(name, rights or Rights({ALL: "view"}))
            known[name] = replace(user, **secret).with_new_generation()
        # what cannot be noted is not done
        _note(config, action, name, known.get(name))
    if token:
        err.print("The token, which is shown only now:")
        print(token)  # noqa: T201 - a program may read it


def _password() -> str:
    from edge.users.passwords import hash_of

    if not sys.stdin.isatty():
        return hash_of(sys.stdin.readline().rstrip("\r\n"))
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UsageError("the two passwords differ")
    return hash_of(password)


def _note(config: Config, action: str, name: str, user: User | None) -> None:
    """Write it into the audit log, where there is one. Raises: DataError: it cannot be written."""
    from edge.daemon.serving import audit_file_of
    from edge.daemon.state import state_dir, with_state_dir
    from edge.users.audit import AuditLog

    path = audit_file_of(with_state_dir(config, state_dir(config)))
    if path is not None:
        roles = {} if user is None else {"roles": dict(user.rights.roles)}
        log = AuditLog(path, int(config.server.audit_mb * 1e6))
        log.note(f"edge users {action}", f"{getpass.getuser()} of this machine", "", user=name, **roles)


def _list(known: dict[str, User], as_json: bool) -> None:
    facts = [
        {
            "name": user.name,
            "roles": dict(user.rights.roles),
            "has_password": bool(user.password),
            "has_token": bool(user.token),
        }
        for user in known.values()
    ]
    if as_json:
        print_json(facts)
        return
    for user in known.values():
        roles = ", ".join(f"{camera} = {role}" for camera, role in user.rights.roles.items())
        ways = [word for word, has in (("password", user.password), ("token", user.token)) if has] or ["vouched for"]
        out.print(f"{user.name}: {roles} ({', '.join(ways)})")
    if not known:
        out.print("no users")

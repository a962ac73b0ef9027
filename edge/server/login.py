"""The page that asks for a login or a token: whole in one answer, as nothing else is given without one."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from edge.server.answers import HEADERS

WORDS = Path(__file__).parents[1] / "web" / "words.js"

STYLE = (
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f5f6f8;color:#10161c;"
    "font:16px/1.5 system-ui,sans-serif}main{width:min(22rem,88vw)}h1{font-size:1.4rem;margin:0 0 .3rem}"
    "p{margin:0 0 1rem;color:#4a5662}p.wrong{color:#b3380a}label{display:block;font-weight:600;margin:.8rem 0 .3rem}"
    "input,button{box-sizing:border-box;width:100%;min-height:44px;padding:.5rem .7rem;font:inherit;border-radius:10px;"
    "border:1px solid #8a95a1}button{margin-top:.8rem;border:0;background:#0b7a6b;color:#fff;font-weight:600}"
    "@media(prefers-color-scheme:dark){body{background:#0d1014;color:#eef2f5}p{color:#aab5c0}p.wrong{color:#ff7a45}"
    "input{background:#171c22;color:inherit}}"
)
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# of a page that is whole in one answer, with a form
FORM_HEADERS: Mapping[str, str] = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": HEADERS["content-security-policy"]
    .replace("style-src 'self'", f"style-src 'sha256-{_DIGEST}'")
    .replace("form-action 'none'", "form-action 'self'"),
}
# the browser says then where the form comes from
LOGIN_HEADERS: Mapping[str, str] = {**FORM_HEADERS, "referrer-policy": "same-origin", "www-authenticate": "Bearer"}


def page_of(inner: str) -> str:
    """A small page around this HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Edgeloop</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="icon.svg" type="image/svg+xml">'
        f"<style>{STYLE}</style></head><body><main><h1>Edgeloop</h1>{inner}</main></body></html>\n"
    )


@cache
def _table() -> Mapping[str, str]:
    """The words of this page, which stand with those of the others."""
    found = re.findall(r'^  "(login\.[\w.]+)": "(.*)",$', WORDS.read_text(encoding="utf-8"), re.MULTILINE)
    return {key: html.escape(text) for key, text in found}


def words(key: str, **values: str) -> str:
    """The words of a key, with values in place of what is in braces."""
    return _table()[key].format(**values)


def login_page(wrong: str = "", *, has_users: bool = True) -> str:
    """The page.

    Args:
        wrong: what was wrong before, as ``words`` gives it.
        has_users: whether a name is asked for; else the token alone.
    """
    said = f'<p class="wrong" role="alert">{wrong}</p>' if wrong else ""
    form = _users_form() if has_users else _token_form()
    return page_of(f"<p>{words('login.users' if has_users else 'login.token.only')}</p>{said}{form}")


def _users_form() -> str:
    return (
        f'<form method="post" action="/login"><label for="name">{words("login.name")}</label>'
        '<input id="name" name="name" autocomplete="username" autocapitalize="none" autofocus>'
        f'<label for="password">{words("login.password")}</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" required>'
        f"<button>{words('login.go')}</button></form>"
    )


def _token_form() -> str:
    return (
        f'<form method="get" action="/"><label for="token">{words("login.token")}</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        f"<button>{words('login.token.go')}</button></form>"
    )

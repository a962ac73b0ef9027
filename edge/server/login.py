"""The page that asks for the token: whole in one answer, as nothing else is given without one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from edge.server.answers import HEADERS

STYLE = (
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f5f6f8;color:#10161c;"
    "font:16px/1.5 system-ui,sans-serif}main{width:min(22rem,88vw)}h1{font-size:1.4rem;margin:0 0 .3rem}"
    "p{margin:0 0 1rem;color:#4a5662}p.wrong{color:#b3380a}label{display:block;font-weight:600;margin-bottom:.3rem}"
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
LOGIN_HEADERS: Mapping[str, str] = {**FORM_HEADERS, "www-authenticate": "Bearer"}


def page_of(inner: str) -> str:
    """A small page around this HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Edgeloop</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main><h1>Edgeloop</h1>{inner}</main></body></html>\n"
    )


def login_page(words: str = "") -> str:
    """The page; ``words`` say what was wrong with the token before, plain text without markup."""
    wrong = f'<p class="wrong" role="alert">{words}</p>' if words else ""
    return page_of(
        "<p>This device shows its cameras to who has its token.</p>"
        f'{wrong}<form method="get" action="/"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        "<button>Open</button></form>"
    )

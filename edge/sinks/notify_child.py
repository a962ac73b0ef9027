"""Sends one message with Apprise: an order as JSON from standard input, an answer as JSON on standard output.

Run by ``edge.sinks.notify`` as ``python -m edge.sinks.notify_child PARENT``, the parent's process number. The exit code
is 0 when the service took it. No text of Apprise is passed on: it may hold the address with its keys.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import apprise

PR_SET_PDEATHSIG = 1
# a server may answer without end
MAX_MEMORY_BYTES = 768 << 20
MAX_ORDER_CHARS = 1 << 20


def open_service(url: str) -> apprise.NotifyBase:
    """The service of an address; nothing but that will be spoken to, and nothing of Apprise's own is shown there.

    Raises:
        ValueError: Apprise does not understand it.
    """
    import apprise

    asset = apprise.AppriseAsset(
        app_id="Edgeloop", app_desc="Edgeloop", app_url="", image_url_mask="", image_url_logo="", http_redirects=False
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        raise ValueError("the address is not understood; see https://appriseit.com/services/")
    return service


def send(service: apprise.NotifyBase, order: dict[str, Any]) -> bool:
    """Whether the service took the message; where it takes no picture, without one."""
    import apprise

    messages = apprise.Apprise()
    messages.add(service)
    with_picture = {"attach": order["picture"]} if order["picture"] else {}
    body_format = apprise.NotifyFormat.TEXT
    return bool(messages.notify(order["body"], title=order["title"], body_format=body_format, **with_picture))


def place_of(service: apprise.NotifyBase) -> tuple[str, int]:
    """Host and port of a service's server; an empty host where that cannot be told."""
    if host := getattr(service, "smtp_host", None):
        return host, service.port or 587
    fixed = service.cloud_notify_url if getattr(service, "mode", "") == "cloud" else getattr(service, "notify_url", "")
    parts = urlsplit(fixed if isinstance(fixed, str) else "")
    if parts.hostname and "{" not in parts.hostname:
        return parts.hostname, parts.port or 443
    return service.host or "", service.port or (443 if service.secure else 80)


def reached(service: apprise.NotifyBase, timeout_s: float) -> str:
    """What a connection shows. Raises: OSError: there is none."""
    host, port = place_of(service)
    if not host:
        return "is understood; where it leads was not tried"
    socket.create_connection((host, port), timeout_s / 2).close()
    return "answers"


def answer(order: dict[str, Any]) -> tuple[bool, str]:
    """Do what is asked; whether it worked, and a text without secrets."""
    try:
        service = open_service(order["url"])
        if "body" not in order:
            return True, reached(service, order["timeout_s"])
        return send(service, order), "the message was not taken"
    except OSError as error:
        return False, f"its server cannot be reached ({error.strerror or type(error).__name__})"
    except MemoryError:
        return False, "its server answers with too much"
    except ValueError as error:
        return False, str(error) if order.get("url", "") not in str(error) else "the address is not understood"


def main() -> None:
    """Serve the parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # it may have been killed before that; its own number may be 1, in a container
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    is_done, text = answer(json.loads(sys.stdin.read(MAX_ORDER_CHARS)))
    sys.stdout.write(json.dumps({"text": text}))
    sys.stdout.flush()
    # threads of plugins that still wait for a server are nobody's any more
    os._exit(0 if is_done else 1)


if __name__ == "__main__":
    main()

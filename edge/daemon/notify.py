"""Telling systemd how the process is: ready, alive, stopping (sd_notify(3)); nothing where nobody listens."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(message: str) -> None:
    """Send a message such as ``READY=1``; does nothing where no NOTIFY_SOCKET is set, and never waits or fails."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        # whoever does not listen must not hold up the cameras
        sender.setblocking(False)
        try:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(message.encode())
        except OSError as error:
            log.debug("NOTIFY_SOCKET: %s was not taken (%s)", message, error.strerror)


def status(text: str) -> None:
    """Show one line in ``systemctl status``."""
    notify(f"STATUS={text}".replace("\n", " "))

"""Tries passwords at a login: ``python brute_force.py PORT CONNECTIONS SECONDS``; prints how often which answer came.

Every connection comes from two networks in turn, with names that are known and that are not.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress


def tries(port: int, number: int, until_s: float, found: Counter[str]) -> None:
    """Log in again and again, each time over a connection of its own."""
    turn = 0
    while time.monotonic() < until_s:
        turn += 1
        body = f"name={'vera' if turn % 2 else 'nobody'}&password=guess-{number}-{turn}"
        head = f"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5, (f"127.0.{number % 2}.7", 0)) as one:
            # no port is left waiting for a minute, which servers of other tests want
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(head.encode() + body.encode())
            answer = one.recv(4096)
            found[answer[9:12].decode("latin-1")] += 1


def main() -> None:
    """Try over so many connections at once."""
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    found: Counter[str] = Counter()
    until_s = time.monotonic() + seconds
    threads = [threading.Thread(target=tries, args=(port, number, until_s, found)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = ", ".join(f"{status}: {times}" for status, times in sorted(found.items()))
    print(f"{found.total() / seconds:.0f} logins/s tried over {count} connections ({answers})")


if __name__ == "__main__":
    main()

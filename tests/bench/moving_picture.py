"""The moving picture of README: the live page of a daemon with four cameras of the built-in street, as animated WebP.

    python tests/bench/moving_picture.py docs/page.webp

Everything in it is what the daemon says while it is photographed: boxes, names, counts, rates and ages. Needs chromium
(``make servers``), and a machine that is not busy, or its rates show that.
"""

from __future__ import annotations

import argparse
import io
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from page_pictures import browser, look
from PIL import Image

WIDTH, HEIGHT, SHOWN_WIDTH = 1120, 660, 840
NAMES = ("street", "crossing", "car-park", "gate")
COUNT, FPS, QUALITY, WARM_UP_S, OPEN_S = 36, 4, 60, 20, 60
MODEL = Path(__file__).parents[2] / "edge/models/street-nano-int8.onnx"
STREAM = """
[[streams]]
name = "{name}"
source = "synthetic://street?seed={seed}&size=640x360&fps=8&live=1"
[[streams.analytics.lines]]
name = "kerb"
points_share = [[0.1, 0.7], [0.9, 0.62]]
[[streams.analytics.zones]]
name = "crossing"
points_share = [[0.05, 0.75], [0.45, 0.7], [0.5, 0.97], [0.03, 0.97]]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder)) as address, browser() as driver:
        first, *others = photographed(driver, address)
    first.save(chosen.out, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=QUALITY, method=6)
    print(f"{chosen.out}: {len(others) + 1} pictures, {chosen.out.stat().st_size / 2**20:.2f} MB")


@contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """The address of the page of a running daemon."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    streams = "".join(STREAM.format(name=name, seed=seed) for seed, name in enumerate(NAMES))
    text = f'state_dir = "{folder}"\n[server]\nenabled = true\nport = {port}\n[model]\npath = "{MODEL}"\n{streams}'
    (folder / "edge.toml").write_text(text)
    command = [sys.executable, "-c", "from edge.cli import main; main()", "run", str(folder / "edge.toml")]
    process = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/readyz")
        yield address
    finally:
        process.terminate()
        process.wait(20)


def wait_for(address: str) -> None:
    until_s = time.monotonic() + OPEN_S
    while True:
        try:
            urlopen(address, timeout=2).close()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.2)
        else:
            return


def photographed(driver: Any, address: str) -> list[Image.Image]:
    look(driver, WIDTH, HEIGHT, 1, "dark")
    driver.get(address)
    time.sleep(WARM_UP_S)
    pictures: list[Image.Image] = []
    next_s = time.monotonic()
    while len(pictures) < COUNT:
        next_s = max(next_s + 1 / FPS, time.monotonic())
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        pictures.append(picture.resize((SHOWN_WIDTH, round(HEIGHT * SHOWN_WIDTH / WIDTH)), Image.Resampling.LANCZOS))
        time.sleep(max(0.0, next_s - time.monotonic()))
    return pictures


if __name__ == "__main__":
    main()

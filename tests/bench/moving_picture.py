"""The moving picture of README: the live page with four cameras of the built-in street, as an animated WebP.

    python tests/bench/moving_picture.py docs/page.webp

Every picture of the cameras is shown and photographed in turn, so a busy machine makes it no less smooth. Needs
chromium (``make servers``).
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

from page_pictures import Camera, browser, look, results_of
from PIL import Image

from edge.server import LiveServer
from edge.server.board import LiveBoard

WIDTH, HEIGHT, SHOWN_WIDTH = 1120, 660, 840
NAMES = ("street", "crossing", "car-park", "gate")
COUNT, FPS, QUALITY = 36, 8, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    board = LiveBoard()
    cameras = [
        Camera(board, name, results_of(f"synthetic://street?seed={seed}&size=640x360&frames=200"))
        for seed, name in enumerate(NAMES)
    ]
    stats = {one.name: one.stats(is_gone=False) for one in cameras}
    server = LiveServer(board, port=0, stats=lambda: {"streams": stats}, heat=lambda name: None, not_ready=lambda: None)
    try:
        address = f"http://127.0.0.1:{server.start()[1]}"
        with browser() as driver:
            pictures = photographed(driver, address, cameras)
    finally:
        server.stop()
    first, *others = pictures
    first.save(chosen.out, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=QUALITY, method=6)
    print(f"{chosen.out}: {len(pictures)} pictures, {chosen.out.stat().st_size / 2**20:.2f} MB")


def photographed(driver: Any, address: str, cameras: list[Camera]) -> list[Image.Image]:
    look(driver, WIDTH, HEIGHT, 1, "dark")
    driver.get(address)
    show(cameras)
    time.sleep(4)
    pictures = []
    for _ in range(COUNT):
        show(cameras)
        time.sleep(0.4)
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        pictures.append(picture.resize((SHOWN_WIDTH, round(HEIGHT * SHOWN_WIDTH / WIDTH)), Image.Resampling.LANCZOS))
    return pictures


def show(cameras: list[Camera]) -> None:
    for camera in cameras:
        camera.publish()


if __name__ == "__main__":
    main()

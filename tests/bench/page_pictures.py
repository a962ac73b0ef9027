"""Pictures of the live page, on two screens and a phone, light and dark: 1, 2, 4, 9 and 16 cameras, and one's own page.

    python tests/bench/page_pictures.py OUT [CLIP…] [--only 16]

What is seen are real results of the shipped detector, on the clips or on the built-in street. Needs chromium (``make
servers``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from selenium import webdriver

import edge
from edge.pictures.planes import Planes
from edge.server import LiveServer
from edge.server.board import LiveBoard
from edge.sinks.live import LiveSink
from edge.types import Event, Float32, Frame, Result

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "servers")]
from e2e.test_page_browser import FLAGS
from needs import find

COUNTS = (1, 2, 4, 9, 16)
# width, height, device pixel ratio
SCREENS = {"1440x900": (1440, 900, 1), "1920x1080": (1920, 1080, 1), "phone": (390, 844, 2)}
NAMES = ("door", "yard", "gate", "north-entrance-of-the-old-hall", "car-park", "hall", "loading-bay", "roof", "stairs")
KEPT, WARM_UP, FPS = 40, 40, 10
OFFLINE = "rtsp://10.0.0.7/live: connection refused, next attempt in 12 s"
CLASSES = tuple(json.loads((Path(edge.__file__).parent / "models/real-street.json").read_text())["classes"])
CUT = """
return [...document.querySelectorAll("h1, h2, .badge, .button, .summary, .facts, dt, dd, th, .veil")]
  .filter((e) => e.offsetParent && !e.classList.contains("unseen") && getComputedStyle(e).textOverflow !== "ellipsis")
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow !== "visible")
  .map((e) => e.className + ": " + e.innerText)
"""


@dataclass(frozen=True)
class Drawn:
    """A zone or a line in pixels of a picture."""

    kind: Literal["line", "zone"]
    name: str
    text: str
    points: Float32


def drawn_in(width: int, height: int) -> tuple[Drawn, ...]:
    size = np.array([width, height], np.float32)
    kerb = np.array([[0.1, 0.7], [0.9, 0.62]], np.float32) * size
    crossing = np.array([[0.05, 0.75], [0.45, 0.7], [0.5, 0.97], [0.03, 0.97]], np.float32) * size
    return Drawn("line", "kerb", "in 12 · out 9", kerb), Drawn("zone", "crossing", "2 inside", crossing)


class Camera:
    """Shows the same seconds again and again."""

    def __init__(self, board: LiveBoard, name: str, results: list[Result]) -> None:
        self.name, self.results, self.number = name, results, 0
        frame = results[0].frame
        info = {"source": f"rtsp://***@10.0.0.2/{name}", "width": frame.width, "height": frame.height, "fps": FPS}
        model = {"name": "street", "task": "detect", "precision": "int8", "classes": list(CLASSES)}
        board.add_stream(name, {**info, "model": model, "heatmap": True})
        shapes = drawn_in(frame.width, frame.height)
        self.sink = LiveSink(board, name, CLASSES, shapes=lambda: shapes)

    def publish(self) -> None:
        result = self.results[self.number % len(self.results)]
        # a picture as it comes from its decoder, and a time that goes on
        planes = Planes(result.frame.planes.form, result.frame.planes.arrays)
        frame = Frame(self.name, 0, self.number, time.monotonic_ns(), self.number * 10**9 // FPS, planes=planes)
        self.number += 1
        crossed = Event("line_crossed", self.name, 1, 7, {"line": "kerb", "direction": "out", "class": "person"})
        self.sink.write(replace(result, frame=frame, events=(crossed,) * (self.number % 30 == 0)), result.picture)

    def stats(self, is_gone: bool) -> dict[str, Any]:
        state = {"state": "backing_off", "reason": OFFLINE} if is_gone else {"state": "streaming", "reason": ""}
        counts = {"captured": self.number, "emitted": self.number, "drop_too_old": 0}
        stages = {"infer": {"median_ms": 9.0, "p99_ms": 12.0}, "track": {"median_ms": 0.4, "p99_ms": 0.6}}
        lines = {"lines": {"kerb": {"in": 12, "out": 9}}, "zones": {"crossing": {"occupancy": 2}}}
        rates = {"fps_in": 10.0, "fps_out": 10.0, "age_median_ms": 31.0, "age_p99_ms": 48.0}
        return {**state, **rates, "counts": counts, "stages": stages, "analytics": lines}


def results_of(source: str) -> list[Result]:
    return list(itertools.islice(edge.track(source), WARM_UP, WARM_UP + KEPT))


def main() -> None:
    """Write the pictures, and say what is cut off in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("clips", nargs="*")
    parser.add_argument("--only", type=int, choices=COUNTS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    sources = chosen.clips or [f"synthetic://street?seed={seed}&frames=200" for seed in range(4)]
    shown = [results_of(source) for source in sources]
    with browser() as driver:
        for count in [chosen.only] if chosen.only else COUNTS:
            with showing(count, shown) as url:
                picture_all(driver, url, count, chosen.out)


@contextmanager
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(find("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def showing(count: int, shown: list[list[Result]]) -> Iterator[str]:
    """A server for so many cameras; of several the last is offline, and one is a file."""
    board, stopping = LiveBoard(), threading.Event()
    names = [NAMES[number % len(NAMES)] + ("" if number < len(NAMES) else f"-{number}") for number in range(count)]
    cameras = [Camera(board, name, shown[number % len(shown)]) for number, name in enumerate(names)]
    gone = {cameras[-1].name} if count > 2 else set()
    server = LiveServer(
        board,
        port=0,
        stats=lambda: {"streams": {one.name: one.stats(one.name in gone) for one in cameras}},
        heat=lambda name: None,
        not_ready=lambda: None,
    )
    if count > 3:
        board.add_stream(names[2], {**board.info(names[2]), "is_file": True})

    def run() -> None:
        while not stopping.wait(1 / FPS):
            for camera in cameras:
                if camera.name not in gone or camera.number < 20:
                    camera.publish()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.start()[1]}"
    finally:
        stopping.set()
        thread.join()
        server.stop()


def picture_all(driver: Any, url: str, count: int, out: Path) -> None:
    for (name, (width, height, ratio)), scheme in itertools.product(SCREENS.items(), ("light", "dark")):
        look(driver, width, height, ratio, scheme)
        views = {f"{count:02}": url} | ({"camera": f"{url}/?picture=jpeg#/camera/{NAMES[0]}"} if count == 1 else {})
        for view, address in views.items():
            driver.get("about:blank")
            driver.get(address)
            time.sleep(4)
            path = out / f"{view}-{name}-{scheme}.png"
            driver.save_screenshot(str(path))
            cut = driver.execute_script(CUT)
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            print(path.name, *(f"\n  cut: {one!r}" for one in cut), "" if wide <= width else f"\n  {wide} px wide")


def look(driver: Any, width: int, height: int, ratio: float, scheme: str) -> None:
    """Of the browser: its window, its screen, light or dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


if __name__ == "__main__":
    main()

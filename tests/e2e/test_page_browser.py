"""The live page in a real browser: pictures move, boxes are where the JSON says, what breaks comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from e2e.live_show import HEAT, NUMBER_BITS, SQUARE_PX, show, wait_until
from needs import need

from edge.overlay.palette import SAFE
from edge.types import Event

pytestmark = pytest.mark.real_server
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
# reads the picture that is on screen
READ_PICTURE = """
const name = '[data-stream="' + arguments[0] + '"]';
const picture = document.querySelector('.picture' + name + ':not([hidden]):not(.is-waiting)');
if (!picture?.dataset.shown) return null;
const width = picture.videoWidth || picture.width, height = picture.videoHeight || picture.height;
const canvas = new OffscreenCanvas(width, height);
const context = canvas.getContext("2d");
context.drawImage(picture, 0, 0);
let data = context.getImageData(0, 0, width, height).data;
let number = 0;
for (let bit = 0; bit < arguments[1]; bit++) {
  const x = bit * arguments[2] + arguments[2] / 2, y = height - arguments[2] / 2;
  number = number * 2 + (data[4 * (y * width + x)] > 127 ? 1 : 0);
}
// what the page has drawn lies over the picture, which is shown whole in the middle of its place
const marks = document.querySelector('.marks' + name);
const scale = Math.min(marks.width / width, marks.height / height) || 1;
const seq = marks.dataset.seq === "" ? null : Number(marks.dataset.seq);
context.drawImage(marks, (marks.width - width * scale) / 2, (marks.height - height * scale) / 2, width * scale,
  height * scale, 0, 0, width, height);
data = context.getImageData(0, 0, width, height).data;
const at = (arguments[3] || []).map(([x, y]) => Array.from(data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)));
return {number, seq, at, width, height};
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program, driver_program = need("chromium"), need("chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium; run: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, "--window-size=1280,900", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    yield chromium
    chromium.get("about:blank")
    faults = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    # a server that is away or about to close is part of some tests; a script that fails never is
    closing = r"/whep\?plain=\d+ - Failed to load resource: the server responded with a status of 503"
    # the documented answer of a device that keeps no recordings, which the page says in words
    nothing_kept = r"/api/(recordings|history)\?\S* - Failed to load resource: .* status of 404"
    # the documented answers to who may not change the file, turn a camera, or draws or adds what cannot work, in words
    not_saved = r"/(drawn|presets|cameras|cameras/look) - Failed to load resource: .* status of (403|409)"
    # and to a page whose user may not see a camera any more: it asks then which are left
    not_seen = r"/api/feed\?\S* - Failed to load resource: .* status of 404"
    documented = f"{nothing_kept}|{not_saved}|{closing}|{not_seen}"
    expected = ("net::ERR", "status of 401")
    unexpected = [text for text in faults if not any(one in text for one in expected)]
    assert not [text for text in unexpected if not re.search(documented, text)]


def picture(browser: Any, stream: str = "door", points: list[tuple[int, int]] | None = None) -> Any:
    return browser.execute_script(READ_PICTURE, stream, NUMBER_BITS, SQUARE_PX, points or [])


def wait_for_number(browser: Any, above: int, stream: str = "door") -> Any:
    found: list[Any] = []

    def is_there() -> bool:
        found.append(picture(browser, stream))
        return found[-1] is not None and found[-1]["number"] > above

    wait_until(is_there)
    return found[-1]


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText || ''", selector))


def engine(browser: Any) -> str:
    return str(browser.execute_script("return document.documentElement.dataset.engine"))


def test_the_pictures_move_and_their_numbers_rise(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(running.url)
        numbers = [wait_for_number(browser, 0)["number"]]
        for _ in range(3):
            numbers.append(wait_for_number(browser, numbers[-1])["number"])
        assert numbers == sorted(set(numbers))
        assert engine(browser) == "feed"
        assert running.board.counts()["door"]["viewers"] == 1


@pytest.mark.parametrize(
    "place", ["#/camera/%E0%A4%A", "#/camera/%", "#/recordings/%E0%A4%A?t=1e999", "#/recordings?t=-1"]
)
def test_a_mistyped_address_leads_nowhere_and_breaks_nothing(place: str, browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/{place}")
        wait_until(lambda: text_of(browser, "main") != "")
        if place.startswith("#/recordings"):
            wait_until(lambda: "Nothing is recorded" in text_of(browser, "main"))
        browser.execute_script("location.hash = '#/'")
        wait_for_number(browser, 0)


def test_a_picture_is_on_screen_soon_after_it_was_taken(browser: Any) -> None:
    with show("door", size=(1280, 720)) as running, running.play():
        browser.get(f"{running.url}/?picture=jpeg#/camera/door")
        wait_for_number(browser, 10)
        # both clocks are this machine's; the picture is on the canvas when show() has ended
        ages_ms = browser.execute_async_script(
            "const done = arguments[0], {stream, picture} = window.edgeloop.view, ages = [];"
            "const show = picture.show.bind(picture);"
            "picture.show = async (jpeg) => { const taken = Date.parse(stream.result.captured); await show(jpeg);"
            "  ages.push(Date.now() - taken); if (ages.length === 50) done(ages); };"
        )
    median_ms, high_ms = np.median(ages_ms), np.quantile(ages_ms, 0.9)
    print(f"from the camera to the browser's canvas: median {median_ms:.0f} ms, p90 {high_ms:.0f} ms")
    # pictures that queue somewhere are all late; on a busy machine only some are
    assert np.quantile(ages_ms, 0.25) < 100


def test_boxes_are_where_the_json_says(browser: Any) -> None:
    with show("door") as running:
        browser.get(f"{running.url}/?picture=jpeg#/camera/door")
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 1)
        for _ in range(3):
            running.cameras[0].publish()
        wait_for_number(browser, 1)
        objects = browser.execute_script("return window.edgeloop.store.streams.get('door').objects")
        assert [o["track_id"] for o in objects] == [3, 4]
        for thing, colour in zip(objects, SAFE, strict=False):
            x1, y1, x2, y2 = (round(v) for v in thing["xyxy"])
            edges = [(x1, (y1 + y2) // 2), (x2 - 1, (y1 + y2) // 2), ((x1 + x2) // 2, y2 - 1)]
            for found in picture(browser, points=edges)["at"]:
                # JPEG blurs colours across a line that is one pixel wide
                assert np.abs(np.array(found) - np.array(colour[::-1])).max() < 110
                assert np.abs(np.array(found) - 70).max() > 40


STEPS = """
const done = arguments[0], name = '[data-stream="door"]', found = [];
const look = () => {
  const picture = document.querySelector(".picture" + name + ":not([hidden]):not(.is-waiting)");
  const marks = document.querySelector(".marks" + name);
  const width = picture.videoWidth || picture.width, height = picture.videoHeight || picture.height;
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const data = context.getImageData(0, height - Math.round(SQUARE * width / WIDE / 2), width, 1).data;
  let number = 0;
  for (let bit = 0; bit < BITS; bit++)
    number = number * 2 + (data[4 * Math.round((bit + 0.5) * SQUARE * width / WIDE)] > 127 ? 1 : 0);
  found.push([number, Number(marks.dataset.seq)]);
  if (found.length === 60) done(found); else next();
};
const video = document.querySelector("video.picture:not(.is-waiting)");
// after the page's own: what it draws then is on screen with the picture
const next = () => video ? video.requestVideoFrameCallback(look) : requestAnimationFrame(look);
next();
""".replace("SQUARE", str(SQUARE_PX)).replace("BITS", str(NUMBER_BITS))


def test_what_is_drawn_belongs_to_the_picture_on_screen(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/?picture=jpeg#/camera/door")
        wait_for_number(browser, 5)
        steps = browser.execute_async_script(STEPS.replace("WIDE", "640"))
    assert len({number for number, _ in steps}) > 5
    assert [number for number, _ in steps] == [seq for _, seq in steps]
    # nothing was drawn into the pictures
    assert running.cameras[0].num_drawn == 0


@pytest.mark.parametrize(("ratio", "width"), [(1, 1280), (2, 700), (3, 420)])
def test_what_is_drawn_has_the_pixels_of_the_screen(browser: Any, ratio: int, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": ratio, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        with show("door") as running, running.play():
            browser.get(f"{running.url}/?picture=jpeg#/camera/door")
            wait_for_number(browser, 5)
            size = browser.execute_script(
                "const {clientWidth, width, clientHeight, height} = document.querySelector('.marks');"
                "return [clientWidth, width, clientHeight, height]"
            )
            assert size[1] == size[0] * ratio and size[3] == size[2] * ratio
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_small_card_asks_for_a_small_picture_and_a_large_one_for_a_large(browser: Any) -> None:
    names = [f"camera-{number}" for number in range(16)]
    with show(*names, size=(1920, 1080)) as running, running.play(fps=4):
        browser.get(running.url)
        small = wait_for_number_of_any_size(browser, names[0])
        browser.get(f"{running.url}/?picture=jpeg#/camera/{names[0]}")
        wait_until(lambda: (wait_for_number_of_any_size(browser, names[0])["width"]) > 2 * small["width"])
        assert small["width"] <= 320


def wait_for_number_of_any_size(browser: Any, name: str) -> Any:
    wait_until(lambda: picture(browser, name) is not None)
    return picture(browser, name)


LABELS = """
const done = arguments[0];
import("/labels.js").then(({placed}) => {
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const faults = [], counts = [];
  for (const bounds of [{width: 300, height: 170}, {width: 900, height: 500}, {width: 1900, height: 1060}])
    for (let round = 0; round < 60; round++) {
      const things = Array.from({length: 1 + Math.floor(random() * 60)}, () => {
        const x1 = random() * bounds.width, y1 = random() * bounds.height;
        const sizes = [{width: 110, height: 18}, {width: 74, height: 18}, {width: 26, height: 18}];
        return {box: {x1, y1, x2: x1 + 4 + random() * 120, y2: y1 + 4 + random() * 200}, sizes};
      });
      const places = placed(things, bounds);
      const again = placed(things.map((thing, i) => ({...thing, last: places[i]})), bounds);
      if (JSON.stringify(again) !== JSON.stringify(places)) faults.push("moved without a reason");
      const all = places.filter((place) => place);
      counts.push(all.length / things.length);
      all.forEach((a, i) => {
        const isInside = a.x >= 0 && a.y >= 0 && a.x + a.width <= bounds.width && a.y + a.height <= bounds.height;
        if (!isInside) faults.push("outside");
        for (const b of all.slice(i + 1))
          if (a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height)
            faults.push("one over another");
      });
    }
  done({faults: [...new Set(faults)], mean: counts.reduce((a, b) => a + b) / counts.length});
});
"""


def test_labels_lie_beside_one_another_inside_the_picture_and_stay_where_they_were(browser: Any) -> None:
    with show("door") as running:
        browser.get(running.url)
        told = browser.execute_async_script(LABELS)
    assert told["faults"] == []
    # sixty people in 300 pixels do not all have room
    assert told["mean"] > 0.8


ARRANGED = """
const done = arguments[0];
import("/grid.js").then(({arranged}) => done([[1440, 844], [1920, 1024], [1280, 664]].flatMap(([width, height]) =>
  Array.from({length: 16}, (_, i) => ({count: i + 1, width, height, ...arranged(i + 1, width, height)})))));
"""


def test_one_to_sixteen_cameras_fill_the_window_and_none_is_below_its_edge(browser: Any) -> None:
    with show("door") as running:
        browser.get(running.url)
        found = browser.execute_async_script(ARRANGED)
    for one in found:
        rows = -(-one["count"] // one["columns"])
        wide = one["columns"] * one["card"] + 12 * (one["columns"] - 1)
        high = rows * (one["card"] * 9 / 16 + 40) + 12 * (rows - 1)
        assert wide <= one["width"] and high <= one["height"] + 1, one
        # larger cards would not fit in either direction
        assert wide + one["columns"] + 1 > one["width"] or high + rows > one["height"] - 1, one


def test_a_file_is_not_called_live(browser: Any) -> None:
    with show("door") as running:
        running.board.add_stream("door", {**running.board.info("door"), "is_file": True})
        with running.play():
            browser.get(running.url)
            wait_for_number(browser, 0)
            wait_until(lambda: text_of(browser, ".badge") == "File")
            assert text_of(browser, ".summary") == "1 of 1 playing"
            assert "live" not in text_of(browser, "body").lower()


def test_the_camera_page_shows_tracks_counts_events_and_the_model(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_for_number(browser, 0)
        running.cameras[0].publish(Event("line_crossed", "door", 1, 3, {"line": "kerb", "direction": "in"}))
        wait_until(lambda: "line crossed" in text_of(browser, ".events"))
        wait_until(lambda: browser.execute_script("return document.querySelectorAll('tr[data-track]').length") == 2)
        assert "track 3 crossed kerb, in" in text_of(browser, ".events")
        assert "person" in text_of(browser, ".counts")
        assert "rtsp://***@10.0.0.2/live" in text_of(browser, ".card-list")
        wait_until(lambda: "infer" in text_of(browser, ".camera-main"))


def test_the_heat_map_lies_over_the_picture_when_asked_for(browser: Any) -> None:
    with show("door", "yard") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_for_number(browser, 0)
        (button,) = [one for one in browser.find_elements("css selector", ".buttons button") if one.text == "Heat map"]
        assert not browser.execute_script("return document.querySelector('.heat').src")
        button.click()
        wait_until(
            lambda: browser.execute_script("return document.querySelector('.heat').naturalWidth") == HEAT.shape[1]
        )
        button.click()
        assert not browser.find_element("css selector", ".heat").is_displayed()
        browser.get(f"{running.url}/#/camera/yard")
        wait_for_number(browser, 0, "yard")
        assert "Heat map" not in text_of(browser, ".buttons")


def test_a_connection_that_drops_comes_back(browser: Any) -> None:
    with show("door") as running:
        port = running.port
        with running.play():
            browser.get(running.url)
            wait_for_number(browser, 5)
    wait_until(lambda: text_of(browser, ".summary") == "Reconnecting")
    assert "Connection lost" in text_of(browser, ".card .veil")
    with show("door", port=port) as again, again.play():
        wait_until(lambda: again.board.counts()["door"]["viewers"] == 1)
        wait_until(lambda: text_of(browser, ".summary") == "1 of 1 live")
        before = picture(browser)["number"]
        wait_until(lambda: picture(browser)["number"] != before)


def test_the_fallback_engages_where_the_feed_never_works(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/api/feed*"]})
        try:
            browser.get(running.url)
            wait_until(lambda: engine(browser) == "snapshots", timeout_s=30)
            first = wait_for_number(browser, 0)["number"]
            wait_for_number(browser, first)
        finally:
            browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


def test_the_fallback_comes_back_after_a_restart(browser: Any) -> None:
    with show("door") as running:
        port = running.port
        with running.play():
            browser.get(f"{running.url}/?engine=snapshots#/camera/door")
            wait_for_number(browser, 5)
    wait_until(lambda: text_of(browser, ".summary") == "Reconnecting")
    with show("door", port=port) as again, again.play():
        wait_until(lambda: text_of(browser, ".summary") == "1 of 1 live")
        before = picture(browser)["number"]
        wait_until(lambda: picture(browser)["number"] != before)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("streaming", "Live"),
        ("ended", "Ended"),
        ("backing_off", "Offline"),
        ("frozen", "Frozen"),
        ("connecting", "Connecting"),
    ],
)
def test_the_state_of_a_camera_is_told_honestly(browser: Any, state: str, words: str) -> None:
    with show("door") as running, running.play():
        browser.get(running.url)
        wait_for_number(browser, 0)
        running.cameras[0].state = state
        wait_until(lambda: text_of(browser, ".badge") == words)


@pytest.mark.parametrize("route", ["", "#/camera/door"])
def test_an_offline_camera_says_so_everywhere_and_shows_nothing_as_if_it_were_there(browser: Any, route: str) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/{route}")
        wait_for_number(browser, 0)
        wait_until(lambda: "1 person" in text_of(browser, ".seen") or "person" in text_of(browser, ".counts"))
        running.cameras[0].state = "backing_off"
        wait_until(lambda: text_of(browser, ".badge") == "Offline")
        assert text_of(browser, ".veil") == "Offline"
        assert text_of(browser, ".summary") == "0 of 1 live"
        assert "Offline" in text_of(browser, ".seen") + text_of(browser, ".still")
        said = text_of(browser, "main")
        assert "person" not in said.replace("person, car", "") and "fps\n" not in text_of(browser, ".facts")


def test_a_camera_that_sends_nothing_is_not_called_live(browser: Any) -> None:
    with show("door") as running:
        with running.play():
            browser.get(running.url)
            wait_for_number(browser, 0)
        wait_until(lambda: text_of(browser, ".badge").startswith("No picture for"))
        assert text_of(browser, ".summary") == "0 of 1 live"


def test_a_hidden_page_costs_nothing(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(running.url)
        wait_for_number(browser, 0)
        hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        browser.execute_script(hide + "document.dispatchEvent(new Event('visibilitychange'))", True)
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 0)
        browser.execute_script(hide + "document.dispatchEvent(new Event('visibilitychange'))", False)
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 1)


def test_sixteen_cameras_all_move(browser: Any) -> None:
    names = [f"camera-{number}" for number in range(16)]
    with show(*names) as running, running.play(fps=8):
        browser.get(running.url)
        wait_until(lambda: browser.find_elements("css selector", ".grid"))
        first = {name: wait_for_number(browser, 0, name)["number"] for name in names}
        for name in names:
            wait_for_number(browser, first[name], name)


def test_only_cameras_on_screen_are_drawn(browser: Any) -> None:
    names = [f"camera-{number}" for number in range(40)]
    with show(*names) as running, running.play(fps=8):
        browser.get(running.url)
        wait_for_number(browser, 0, names[0])
        counts = running.board.counts()
        assert counts[names[0]]["viewers"] == 1
        assert counts[names[-1]] == {**counts[names[-1]], "viewers": 0, "encoded": 0}
        browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        wait_for_number(browser, 0, names[-1])


def test_an_open_page_shows_the_events_after_a_restart(browser: Any) -> None:
    with show("door") as running:
        port = running.port
        with running.play():
            browser.get(f"{running.url}/#/camera/door")
            wait_for_number(browser, 0)
            for number in range(5):
                running.cameras[0].publish(Event("line_crossed", "door", number, number, {"line": "before"}))
            wait_until(lambda: "crossed before" in text_of(browser, ".events"))
    with show("door", port=port) as again, again.play():
        again.cameras[0].publish(Event("line_crossed", "door", 1, 1, {"line": "after"}))
        wait_until(lambda: "crossed after" in text_of(browser, ".events"))


def test_the_token_opens_the_page_and_leaves_the_address(browser: Any) -> None:
    with show("door", token="canary-token") as running, running.play():
        browser.get(f"{running.url}/?token=canary-token")
        wait_for_number(browser, 0)
        assert "canary-token" not in browser.current_url
        assert "canary-token" not in browser.page_source
        browser.delete_all_cookies()


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("route", ["", "#/camera/camera-0"])
def test_nothing_sticks_out_sideways(browser: Any, width: int, route: str) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        with show("camera-0", "camera-1", "camera-2", "camera-3") as running, running.play(fps=10):
            browser.get(f"{running.url}/{route}")
            wait_for_number(browser, 0, "camera-0")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

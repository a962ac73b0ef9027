"""How addresses of devices and Jetson cameras are understood, and which decoder an address gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import SourceError
from edge.sources.av import AvSource
from edge.sources.direct import Decoding, open_direct
from edge.sources.opencv import OpenCvSource, gstreamer_pipeline


def test_a_csi_camera_becomes_the_argus_pipeline() -> None:
    assert gstreamer_pipeline("csi://1?size=1280x720&fps=60&flip=2") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
    assert "width=1920,height=1080,framerate=30/1" in gstreamer_pipeline("csi://0")


@pytest.mark.parametrize(
    "uri", ["csi://", "csi://x", "csi://0?size=big", "csi://0?fps=-1", "csi://0?flip=9", "csi://0?zoom=2", "csi://0/x"]
)
def test_a_wrong_csi_address_says_what_is_right(uri: str) -> None:
    with pytest.raises(SourceError, match=r"expected csi://SENSOR\?size=1920x1080&fps=30&flip=0"):
        gstreamer_pipeline(uri)


def test_other_pipelines_are_left_as_they_are() -> None:
    assert gstreamer_pipeline("gst:videotestsrc ! appsink") == "videotestsrc ! appsink"


def test_a_device_that_is_not_there_says_which_are(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such device; present: "):
        OpenCvSource("/dev/v4l/by-id/usb-nothing-video-index0")


def test_a_hardware_decoder_that_is_missing_is_replaced_by_software(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as film:
        video = film.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for index in range(5):
            picture = np.full((48, 64, 3), index * 20, np.uint8)
            film.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        film.mux(video.encode())
    source = open_direct(str(path), Decoding("av", hardware="auto"))
    assert isinstance(source, AvSource)
    assert source.info.decoder in ("PyAV mpeg4, software", "PyAV mpeg4, hardware")
    assert source.read() is not None
    source.close()


@pytest.mark.parametrize(
    ("nodes", "kind", "expected"),
    [
        (["nvidia3"], "cuda", True),
        (["nvidiactl", "nvidia-uvm"], "cuda", False),
        (["dri/renderD129"], "vaapi", True),
        ([], "drm", False),
        ([], "videotoolbox", True),
    ],
)
def test_any_card_that_a_container_was_given_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: list[str], kind: str, expected: bool
) -> None:
    from edge.sources import av as av_source

    for node in nodes:
        (tmp_path / node).parent.mkdir(exist_ok=True)
        (tmp_path / node).touch()
    monkeypatch.setattr(av_source, "DEVICES", tmp_path)
    assert av_source._has_device(kind) is expected


@pytest.mark.parametrize(
    ("kind", "stays", "expected"), [("cuda", True, True), ("cuda", False, False), ("vaapi", True, False)]
)
def test_only_cuda_leaves_pictures_on_the_gpu_and_only_if_they_are_wanted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stays: bool, expected: bool
) -> None:
    from edge.sources import av as av_source

    (tmp_path / "dri").mkdir()
    for node in ("nvidia0", "dri/renderD128"):
        (tmp_path / node).touch()
    monkeypatch.setattr(av_source, "DEVICES", tmp_path)
    accelerator = av_source._accelerator(kind, 1, stays)
    assert accelerator.is_hw_owned is expected
    assert accelerator.device_id == (1 if kind == "cuda" else 0)


@pytest.mark.parametrize(
    ("is_isolated", "hardware", "expected"), [(False, "cuda", True), (False, "auto", False), (True, "cuda", None)]
)
def test_pictures_stay_on_the_gpu_in_the_engines_own_process_alone(
    monkeypatch: pytest.MonkeyPatch, is_isolated: bool, hardware: str, expected: bool | None
) -> None:
    from edge.sources import choose
    from edge.sources.isolation import source as isolation

    seen: list[bool] = []
    monkeypatch.setattr(choose, "open_direct", lambda uri, decoding, *_: seen.append(decoding.stays_on_gpu))
    monkeypatch.setattr(choose, "PreparedSource", lambda source, preparation: source)
    monkeypatch.setattr(isolation, "IsolatedSource", lambda uri, **options: options["options"]["decoding"])
    opened = choose.open_source("rtsp://camera/1", decoding=Decoding("av", hardware=hardware), is_isolated=is_isolated)
    assert seen == ([] if expected is None else [expected])
    if is_isolated:
        assert opened["stays_on_gpu"] is False  # type: ignore[index]  # what the child is told

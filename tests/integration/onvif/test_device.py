"""A camera that speaks ONVIF is found, asked, and understood: by either media service and either kind of login."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onvif_device import Auth, OnvifDevice, Picture, onvif_device

from edge.errors import UsageError
from edge.onvif.device import Profile, look_at, own_address, service_url, small_and_large
from edge.onvif.discovery import find_devices
from edge.onvif.soap import Login, parse_xml

MAIN = Picture("main", "H265", 2560, 1440, 20, "rtsp://10.9.9.9:8554/main?channel=1&subtype=0")
SUB = Picture("sub <&>", "H264", 640, 360, 10, "rtsp://somebody:else@0.0.0.0/sub")


@pytest.mark.parametrize("auth", ["token", "digest", "digest-sha256", "none"])
@pytest.mark.parametrize(("media", "has_services"), [(2, True), (1, True), (1, False)])
def test_a_camera_tells_its_pictures_to_who_may_know_them(auth: Auth, media: int, has_services: bool) -> None:
    camera = OnvifDevice([MAIN, SUB], auth=auth, media=media, has_services=has_services)  # type: ignore[arg-type]
    with onvif_device(camera):
        url = camera.url("127.0.0.1")
        device = look_at(url, Login(camera.username, camera.password))
        assert (device.maker, device.model, device.firmware, device.fault) == ("Testmaker", "TM-2 <&>", "1.2", "")
        main, sub = device.profiles
        assert (main.codec, main.width, main.height, main.fps) == ("H265", 2560, 1440, 20.0)
        assert main.address == "rtsp://127.0.0.1:8554/main?channel=1&subtype=0"
        assert sub.address == "rtsp://127.0.0.1/sub"
        # the first answer of HTTP is the challenge
        assert camera.refused == (["no login"] if auth.startswith("digest") else [])


@pytest.mark.parametrize("auth", ["token", "digest", "digest-sha256"])
def test_who_may_not_know_them_is_told_so_and_a_wrong_password_is_shown_once(auth: Auth) -> None:
    camera = OnvifDevice([MAIN], auth=auth)
    with onvif_device(camera):
        stranger = look_at(camera.url("127.0.0.1"))
        assert stranger.wants_login and not stranger.profiles
        camera.refused.clear()
        wrong = look_at(camera.url("127.0.0.1"), Login(camera.username, "something else"))
        assert wrong.wants_login and not wrong.profiles
        # cameras lock users out who try too often
        assert camera.refused.count("wrong user or password") == 1


def test_a_password_is_never_sent_in_clear_text() -> None:
    camera = OnvifDevice([MAIN], auth="basic")
    with onvif_device(camera):
        device = look_at(camera.url("127.0.0.1"), Login(camera.username, camera.password))
    assert "none is sent in clear text" in device.fault and not device.profiles
    assert camera.refused == ["no login"]


def test_a_multicast_finds_it_at_the_address_that_answers() -> None:
    camera = OnvifDevice([SUB], auth="none", named_host="203.0.113.9")
    with onvif_device(camera):
        (found,) = [one for one in find_devices(1.5) if f":{camera.port}/" in one.url]
        assert found.name == "Front door"
        assert found.url == f"http://{found.host}:{camera.port}/onvif/device_service"
        assert found.host not in ("203.0.113.9", "169.254.7.7")
        # its media service is named at another host, and is asked at its own
        assert look_at(found.url).profiles[0].address == f"rtsp://{found.host}/sub"


def profile(width: int, height: int, codec: str = "H264", address: str | None = None) -> Profile:
    name = f"{codec}{width}"
    return Profile(name, name, codec, width, height, 10, f"rtsp://c/{name}" if address is None else address)


@pytest.mark.parametrize(
    ("profiles", "small", "large"),
    [
        ([profile(2560, 1440), profile(640, 360)], "H264640", "H2642560"),
        ([profile(2560, 1440), profile(1280, 720), profile(640, 360)], "H264640", "H2642560"),
        # a thumbnail is not what is looked for
        ([profile(3840, 2160), profile(704, 576), profile(320, 180)], "H264704", "H2643840"),
        ([profile(1920, 1080), profile(352, 288)], "H264352", "H2641920"),
        ([profile(1920, 1080)], "H2641920", None),
        ([profile(1920, 1080), profile(640, 360, "JPEG")], "H2641920", None),
        ([profile(640, 360, "JPEG")], "JPEG640", None),
        ([profile(1920, 1080), profile(640, 360, address="")], "H2641920", None),
        ([profile(0, 0), profile(640, 360)], "H2640", None),
    ],
)
def test_the_small_picture_is_analysed_and_the_large_one_recorded(
    profiles: list[Profile], small: str, large: str | None
) -> None:
    first, second = small_and_large(profiles)
    assert (first.token, None if second is None else second.token) == (small, large)


def test_without_an_address_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="no profile has an RTSP address"):
        small_and_large([profile(640, 360, address="")])


@pytest.mark.parametrize(
    ("told", "own"),
    [
        ("rtsp://192.168.1.20:554/h264?a=1", "rtsp://10.0.0.2/h264?a=1"),
        ("rtsp://evil.example:8554/x", "rtsp://10.0.0.2:8554/x"),
        ("rtsps://u:p@[::1]:322/x", "rtsps://10.0.0.2:322/x"),
        ("http://10.0.0.2/mjpeg", ""),
        ("file:///etc/passwd", ""),
        ("rtsp://10.0.0.2:99999/x", ""),
        ("rtsp://10.0.0.2/a b", ""),
        ('rtsp://10.0.0.2/x"\n[server]', ""),
        ("", ""),
    ],
)
def test_an_address_leads_to_the_camera_or_nowhere(told: str, own: str) -> None:
    assert own_address(told, "10.0.0.2") == own


@given(st.text(max_size=60))
def test_no_address_leads_elsewhere(told: str) -> None:
    for start in ("", "rtsp://", "rtsp://other/"):
        own = own_address(start + told, "10.0.0.2")
        assert (
            own == ""
            or own.startswith(("rtsp://10.0.0.2/", "rtsp://10.0.0.2:", "rtsps://10.0.0.2"))
            or own
            in (
                "rtsp://10.0.0.2",
                f"rtsp://10.0.0.2?{own.partition('?')[2]}",
            )
        )


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("10.0.0.2", "http://10.0.0.2/onvif/device_service"),
        ("cam.lan:8000", "http://cam.lan:8000/onvif/device_service"),
        ("https://cam.lan/onvif/x", "https://cam.lan/onvif/x"),
        ("[fe80::1]:80", "http://[fe80::1]:80/onvif/device_service"),
        ("rtsp://10.0.0.2/x", None),
        ("user:secret@10.0.0.2", None),
        ("10.0.0.2:99999", None),
        ("", None),
    ],
)
def test_a_camera_is_named_by_its_host(place: str, url: str | None) -> None:
    if url is not None:
        assert service_url(place) == url
        return
    with pytest.raises(UsageError, match="HOST, HOST:PORT"):
        service_url(place)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_xml_or_refused(data: bytes) -> None:
    try:
        parse_xml(data)
    except ValueError:
        return

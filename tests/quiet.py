"""Files of tests that a busy machine spoils. ``python tests/quiet.py waiting`` prints those of one kind (Makefile)."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent
QUIET = {
    # they wait for cameras, servers and clocks most of their time and measure seconds: two at a time do not meet.
    # The longest come first
    "waiting": (
        *("e2e/test_sound", "e2e/test_cameras", "e2e/test_live_source", "e2e/test_record_large"),
        *("attack/test_hostile_targets", "attack/test_watch_log_kills", "e2e/test_record_source", "e2e/test_rtsp"),
        *("e2e/test_webrtc", "e2e/test_push_page", "e2e/test_restream", "e2e/test_srt_camera", "e2e/test_server"),
        *("integration/test_source_deadlines", "integration/test_swap"),
    ),
    # they measure what the whole machine does, or meet others on one port of the network
    "measuring": (
        *("e2e/test_workers", "attack/test_floods", "attack/test_gate", "attack/test_logins", "e2e/test_capacity"),
        *("e2e/test_many_viewers", "integration/test_inference_overlap", "integration/test_measure"),
        *("e2e/test_server_limits", "e2e/test_discover", "attack/test_onvif", "integration/test_onvif_peer"),
        "integration/onvif/test_device",
    ),
}


def files(kind: str) -> list[Path]:
    return [TESTS / f"{name}.py" for name in QUIET[kind]]


if __name__ == "__main__":
    print(*(path.relative_to(Path.cwd()) for path in files(sys.argv[1])))

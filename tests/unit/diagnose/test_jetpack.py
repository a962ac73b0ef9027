"""JetPack and TensorRT: the pairs that belong together, and what is said where they do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge.diagnose.explain import explain
from edge.diagnose.jetpack import PAIRS, judge, pair_of

RELEASE = "# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: today\n# KERNEL\n"


def release(major: int, revision: str) -> str:
    return RELEASE.format(major=major, revision=revision)


@pytest.mark.parametrize(
    ("major", "revision", "tensorrt", "level", "expected"),
    [
        (36, "3.0", "8.6.2", "ok", "JetPack 6.0 (L4T R36.3.0) ships TensorRT 8.6"),
        (36, "4.0", "10.3.0", "ok", "JetPack 6.1 or 6.2"),
        (36, "4.4", "10.3.0", "ok", "opset 17 to 20"),
        (38, "2.0", "10.13.3.9", "ok", "JetPack 7.0 or 7.1"),
        (39, "0.0", "10.16.2", "ok", "JetPack 7.2"),
        (36, "4.3", "10.13.2", "wrong", "ships TensorRT 10.3 and CUDA 12.6; found 10.13.2"),
        (36, "4.3", "10.30.1", "wrong", "found 10.30.1"),
        (36, "4.3", None, "missing", "none is seen from this Python"),
        (35, "4.1", "8.5.2", "wrong", "no JetPack that we know; known: R36.2 and later"),
    ],
)
def test_a_pair_is_judged(major: int, revision: str, tensorrt: str | None, level: str, expected: str) -> None:
    found = judge(release(major, revision), tensorrt)
    assert found is not None
    assert found.level == level
    assert expected in found.text
    assert bool(found.advice) is (level != "ok")


def test_what_is_no_jetson_is_not_judged() -> None:
    assert judge("", "10.3.0") is None


def test_a_file_that_says_something_else_is_told() -> None:
    found = judge("no such thing", "10.3.0")
    assert found is not None
    assert found.level == "wrong"


def test_the_table_is_that_of_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "jetson.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if "Orin" in line or "Thor" in line
    ]
    table = {row[0].replace(", ", " or "): row for row in rows if len(row) == 6 and re.match(r"\d", row[0])}
    for pair in PAIRS.values():
        row = table[pair.jetpack]
        assert row[2] == pair.cuda
        assert row[3].startswith(pair.tensorrt)
        assert row[5] == pair.build_from


def test_explain_names_a_pair_that_does_not_fit() -> None:
    found = judge(release(36, "4.3"), "10.13.2")
    assert found is not None
    stats = {"streams": {}, "jetson": {"level": found.level, "text": found.text, "advice": found.advice}}
    (remark,) = [remark for remark in explain(stats) if remark.topic == "JetPack"]
    assert remark.level == "wrong"
    assert "pip uninstall tensorrt" in remark.advice


def test_the_last_row_that_fits_counts() -> None:
    assert pair_of(release(36, "2.0")) is PAIRS[(36, 2)]
    assert pair_of(release(36, "9.0")) is PAIRS[(36, 4)]
    assert pair_of(release(37, "0.0")) is None

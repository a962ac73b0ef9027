"""What the benchmarks share: the option that stores what was measured."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store-baseline", action="store_true", help="store the stages' costs as the new baseline")

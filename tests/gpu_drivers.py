"""The ways to a GPU that are installed here, for tests that run with each."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


def _pycuda() -> Any:
    from edge.engines.cuda.pycuda_driver import PycudaDriver

    return PycudaDriver


def _bindings() -> Any:
    from edge.engines.cuda.bindings_driver import BindingsDriver

    return BindingsDriver


def _missing(package: str) -> Any:
    parent = package.partition(".")[0]
    is_there = importlib.util.find_spec(parent) is not None and importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not is_there, reason=f"{package} is not installed")


# calls that give the class of a driver: neither can be imported without libcuda
CLASSES = [
    pytest.param(_pycuda, id="pycuda", marks=_missing("pycuda")),
    pytest.param(_bindings, id="cuda-bindings", marks=_missing("cuda.bindings")),
]
DRIVERS = [
    pytest.param(lambda: _pycuda()(0), id="pycuda", marks=_missing("pycuda")),
    pytest.param(lambda: _bindings()(0), id="cuda-bindings", marks=_missing("cuda.bindings")),
]

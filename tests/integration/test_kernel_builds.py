"""The kernels through NVIDIA's compiler, for every GPU generation that has a name here."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.engines.cuda import build
from edge.errors import MissingError


@pytest.mark.engine
@pytest.mark.parametrize("capability", build.CAPABILITIES)
def test_nvcc_compiles_the_kernels_or_is_missed(tmp_path: Path, capability: str) -> None:
    out = tmp_path / "kernels.cubin"
    if build.find_nvcc() is None:
        with pytest.raises(MissingError, match="nvcc is missing"):
            build.compile_kernels(capability, out)
        return
    build.compile_kernels(capability, out)
    assert out.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.engine
@pytest.mark.parametrize("capability", ["8.7", "8.9", "9.0", "12.0"])
def test_the_compiler_of_nvidias_python_package_compiles_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    nvcc = build.find_packaged_nvcc()
    if nvcc is None:
        pytest.skip("not installed; run: pip install nvidia-cuda-nvcc")
    monkeypatch.setattr(build, "find_nvcc", lambda: nvcc)
    out = tmp_path / "kernels.cubin"
    build.compile_kernels(capability, out)
    assert out.read_bytes()[:4] == b"\x7fELF"
    assert f"sm_{capability.replace('.', '')}".encode() in out.read_bytes()

"""The parts in C; all else about the package stands in pyproject.toml."""

from setuptools import Extension, setup


def in_c(name: str) -> Extension:
    """A module that a machine without a C compiler goes without."""
    return Extension(
        f"edge.compiled.{name}",
        [f"edge/compiled/{name}.c"],
        depends=["edge/compiled/buffers.h"],
        # a fused multiply-add rounds otherwise than NumPy
        extra_compile_args=["-O3", "-ffp-contract=off"],
        optional=True,
    )


setup(ext_modules=[in_c("_boxes"), in_c("_lines"), in_c("_tracks")])

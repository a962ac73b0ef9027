"""The pictures that calibration and quantization look at: data sets, folders, videos and running cameras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import DataError

if TYPE_CHECKING:
    from calib.frames import Candidate
    from export.data.sample import Dataset


def candidates(
    origins: list[str], frames: int, *, seed: int, every_s: float = 0.5, fingerprints: list[str] | None = None
) -> Iterator[Candidate]:
    """Pictures from all origins in turn.

    Args:
        origins: data sets, folders of pictures, videos, addresses of cameras.
        frames: how many are wanted of all of them together; more are offered, because some will be left out.
        seed: of the random choice.
        every_s: seconds between two frames of a camera.
        fingerprints: takes those of all data sets among the origins.
    """
    from calib.frames import interleave

    share = -(-frames // len(origins))
    return interleave([_from(origin, share, seed, every_s, fingerprints) for origin in origins])


def _from(origin: str, frames: int, seed: int, every_s: float, fingerprints: list[str] | None) -> Iterator[Candidate]:
    from calib.frames import PICTURES, dataset_candidates, folder_candidates, source_candidates
    from edge.addresses.uris import masked
    from edge.sources.choose import open_source

    dataset = _dataset(origin)
    if dataset is not None:
        if fingerprints is not None:
            fingerprints.append(dataset.fingerprint)
        return dataset_candidates(dataset, seed)
    path = Path(origin)
    if path.is_dir() and any(child.suffix.lower() in PICTURES for child in path.rglob("*")):
        return folder_candidates(path, seed)
    return source_candidates(open_source(origin), masked(origin), frames, seed, every_s)


def _dataset(origin: str) -> Dataset | None:
    """The data set that this address names, None where it is something else."""
    from export.data.open_data import SCHEMES, open_dataset

    path = Path(origin)
    scheme = origin.partition(":")[0]
    if (scheme in SCHEMES and "://" not in origin) or path.suffix == ".json":
        return open_dataset(origin, on_error="skip")
    if not path.is_dir():
        return None
    try:
        return open_dataset(origin, on_error="skip")
    except DataError:
        # a folder of pictures without labels is as good
        return None

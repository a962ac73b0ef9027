"""Which pictures a calibration has seen, under whatever name and in whatever data set they come back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from calib.ranges import RangeTable
from edge.types import UInt8

DIGEST_BYTES = 12


@dataclass(frozen=True, slots=True)
class SeenPictures:
    """The frames of one table.

    Attributes:
        digests: of their pixels.
        ids: bare ids of all frames; they prove something only within one of ``datasets``.
        datasets: fingerprints of the data sets that they were taken from, without suffixes.
    """

    digests: frozenset[str]
    ids: frozenset[str]
    datasets: frozenset[str]

    def has(self, picture_id: str, image: UInt8, fingerprint: str = "") -> bool:
        """Whether calibration has seen this picture.

        Args:
            picture_id: its name.
            image: (H, W, 3) uint8 BGR.
            fingerprint: of the data set that it is read from, "" for videos, folders and cameras.
        """
        # another OpenCV may decode a JPEG to other pixels, so within one data set the name is enough
        is_known = bare_id(picture_id) in self.ids and base_of(fingerprint) in self.datasets
        return is_known or picture_digest(image) in self.digests


def seen_pictures(table: RangeTable) -> SeenPictures:
    """The frames that a table was measured on."""
    return SeenPictures(
        digests=frozenset(table.frame_digests),
        ids=frozenset(map(bare_id, table.frame_ids)),
        datasets=frozenset(map(base_of, table.datasets)),
    )


def picture_digest(image: UInt8) -> str:
    """Hash of the pixels and the size: data sets may share names, and one picture may have many."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def bare_id(picture_id: str) -> str:
    """The id without the name that a joined data set puts before it: ``train:7.jpg`` → ``7.jpg``."""
    return picture_id.rpartition(":")[2]


def base_of(fingerprint: str) -> str:
    """The fingerprint of the whole data set: parts of it have a suffix, ``…:100`` or ``…-7``."""
    return fingerprint.partition(":")[0].partition("-")[0]

"""Pictures of events as JPEG files in a folder of bounded size."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import cv2

from edge.errors import DiskError, SinkError, sink_error
from edge.files import write_atomic
from edge.recording.retention import Keep, Kept, files_in, remove, too_many
from edge.types import UInt8

log = logging.getLogger(__name__)
JPEG_QUALITY = 85


# the names that we give; whatever else lies in the folder is somebody else's
OWN_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.jpg")


def encoded(picture: UInt8) -> bytes:
    """An (H, W, 3) uint8 BGR picture as JPEG.

    Raises:
        SinkError: it cannot be encoded.
    """
    is_encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not is_encoded:
        raise SinkError(f"events.snapshots: a picture of shape {picture.shape} could not be encoded as JPEG")
    jpeg: bytes = data.tobytes()
    return jpeg


class Snapshots:
    """A folder of JPEG files, one per event, the oldest of which make room. Used by one thread.

    Files that are not named after an event stay, and do not count.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises: SinkError: the folder cannot be made or read, and no full or read-only disk is to blame."""
        self._folder = folder
        self._keep = Keep(max_bytes=max_bytes)
        self._files: list[Kept] | None = None
        self._num_bytes = 0
        try:
            self._known()
        except DiskError as error:
            log.error("%s; no pictures are kept until it can", error)

    def write(self, event_id: str, picture: UInt8) -> str:
        """Keep a picture; returns its path.

        Raises:
            SinkError: it cannot be encoded or written.
        """
        return self.keep(event_id, encoded(picture))

    def keep(self, event_id: str, data: bytes) -> str:
        """As ``write``, with the JPEG."""
        files = self._known()
        path = self._folder / f"{event_id}.jpg"
        try:
            write_atomic(path, data)
        except OSError as error:
            raise SinkError(f"events.snapshots: {path} could not be written ({error.strerror})") from None
        files.append(Kept(path, time.time_ns(), len(data)))
        self._num_bytes += len(data)
        if self._keep.max_bytes is not None and self._num_bytes > self._keep.max_bytes:
            self._shrink(files, self._keep.max_bytes)
        return str(path)

    def _known(self) -> list[Kept]:
        """Our files, the oldest first; the folder is made and read when that works for the first time."""
        if self._files is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                found = files_in(self._folder, ".jpg")
            except OSError as error:
                text = f"events.snapshots: {self._folder} cannot be made or read ({error.strerror})"
                raise sink_error(text, error) from None
            self._files = [file for file in found if OWN_NAME.fullmatch(file.path.name)]
            self._num_bytes = sum(file.num_bytes for file in self._files)
        return self._files

    def _shrink(self, files: list[Kept], max_bytes: int) -> None:
        # a tenth more than needed, so that not every picture has to look for old ones
        gone = remove(too_many(files, Keep(max_bytes=int(max_bytes * 0.9)), time.time_ns()))
        paths = {file.path for file in gone}
        self._files = [file for file in files if file.path not in paths]
        self._num_bytes = sum(file.num_bytes for file in self._files)

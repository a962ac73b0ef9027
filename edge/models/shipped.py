"""The model files at hand: those that come with the package, and those that were added; docs/models.md says more."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from edge.addresses.uris import kind_of
from edge.errors import ModelError, UsageError
from edge.files import atomic_path, sha256_of
from edge.models.manifest import Manifest, manifest_path, read_sidecar

FOLDER = Path(__file__).parent
DOWNLOAD_TIMEOUT_S = 30.0
# which file to take for what; the others of a family are for other engines
ADVICE = {
    "real-street": "cameras and videos of real streets (edge demo --source 0), and as a teacher",
    "real-street-int8": "real streets on a plain CPU: twice as fast, AP50 0.77 where real-street has 0.85",
    "street-nano-int8": "the built-in street (edge demo): an example, knows no real street",
    "street-instances-nano-int8": "the built-in street with masks and people's joints: an example",
    "street-segment-nano-int8": "the built-in street, pixel by pixel: an example",
    "cifar10-nano-int8": "an example of a classifier",
}


@dataclass(frozen=True, slots=True)
class AtHand:
    """A model file that can be used. Attributes: ``path``; its ``manifest``; ``is_shipped`` with the package."""

    path: Path
    manifest: Manifest
    is_shipped: bool

    @property
    def advice(self) -> str:
        """What to take it for, in words; empty where nothing is known."""
        return ADVICE.get(self.path.stem, "") if self.is_shipped else ""


def demo_model(source: str = "synthetic://street") -> Path:
    """The detector of the demo: of the built-in street for that, of real streets for everything else."""
    return FOLDER / ("street-nano-int8.onnx" if kind_of(source) == "synthetic" else "real-street.onnx")


def added_folder() -> Path:
    """Where added models are: ``edgeloop/models`` in the user's folder for data."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "edgeloop" / "models"


def models_at_hand() -> list[AtHand]:
    """Shipped models first, then added ones; files without a manifest of ours are left out.

    Raises:
        ManifestError: a manifest is wrong, or describes another file.
    """
    found = []
    for folder in (FOLDER, added_folder()):
        for path in sorted(folder.glob("*.onnx")):
            manifest = read_sidecar(path)
            if manifest is not None:
                found.append(AtHand(path, manifest, folder == FOLDER))
    return found


def add_model(origin: str, sha256: str) -> Path:
    """Copy or fetch a model file into ``added_folder``, only if its bytes are the expected ones.

    Args:
        origin: a file, or an ``https://`` address. The manifest or card next to a file is copied too.
        sha256: of the model file, 64 hexadecimal digits.

    Raises:
        UsageError: no hash, or not an ONNX file by name.
        ModelError: it cannot be read, or is another file.
    """
    name = Path(origin.partition("?")[0]).name
    if len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef"):
        raise UsageError("--sha256: expected 64 hexadecimal digits; the one who gives you the model should state them")
    if not name.endswith(".onnx"):
        raise UsageError(f"{origin}: expected a file or address that ends in .onnx")
    target = added_folder() / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        _fetch(origin, temporary)
        if (found := sha256_of(temporary)) != sha256.lower():
            raise ModelError(f"{origin}: expected sha256 {sha256.lower()}, found {found}; it was not added")
    card = manifest_path(Path(origin))
    if card.is_file():
        shutil.copyfile(card, manifest_path(target))
    return target


def _fetch(origin: str, target: Path) -> None:
    try:
        if origin.startswith("https://"):
            with urllib.request.urlopen(origin, timeout=DOWNLOAD_TIMEOUT_S) as answer, target.open("wb") as file:
                shutil.copyfileobj(answer, file)
        else:
            shutil.copyfile(origin, target)
    except (OSError, urllib.error.URLError) as error:
        raise ModelError(f"{origin}: cannot be read: {error}") from None

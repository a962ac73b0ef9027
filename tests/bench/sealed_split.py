"""Part class folders into pictures to learn from and a sealed part that is judged once: the same for everybody.

Usage: python tests/bench/sealed_split.py CLASS_FOLDERS OUT COUNT_PER_CLASS
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def split(source: Path, out: Path, count: int) -> None:
    """Link ``count`` pictures of each class into ``out/sealed``, by the hash of their names, the others into train."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        names = sorted((path.name for path in folder.iterdir()), key=lambda name: _hash(f"{folder.name}/{name}"))
        for place, name in enumerate(names):
            target = out / ("sealed" if place < count else "train") / folder.name
            target.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to((folder / name).resolve())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    split(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

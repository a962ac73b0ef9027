"""Every package that Edgeloop installs is on the list of licences, and none of them asks for more than its notice."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from licences import installed

# licences that let a product be closed: what is of other terms is named here, with where it is used
FREE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|0BSD|CC0|Unlicense|EPL-2\.0 OR BSD|LLVM|BSL"
)
# of the packages that state several: docutils is public domain except for an Emacs mode that its wheel does not bring;
# twine, which is for development alone, asks for it
LOOKED_AT = {"docutils"}
PROPRIETARY = re.compile(r"^(nvidia|tensorrt|cuda|pycuda|triton)")


def listed() -> dict[str, str]:
    found: dict[str, str] = json.loads((ROOT / "docs/licences.json").read_text())
    return found


def test_every_installed_package_is_listed() -> None:
    new = sorted(installed().keys() - listed().keys())
    assert not new, f"{new} came in: look at their licences, then python tests/licences.py > docs/licences.json"


@pytest.mark.parametrize("source", ["listed", "installed"])
def test_no_package_is_under_the_gpl_or_unknown_terms(source: str) -> None:
    licences = listed() if source == "listed" else installed()
    odd = {
        name: terms
        for name, terms in licences.items()
        if name not in LOOKED_AT
        and not PROPRIETARY.match(name)
        and (not FREE.search(terms) or re.search(r"(?<!L)GPL", terms))
    }
    assert odd == {}


def test_what_the_package_of_pyav_brings_is_said() -> None:
    """Its metadata says BSD; the encoders that its package has inside are under the GPL."""
    inside = [name for name in ("libx264", "libx265") if name in av.codecs_available]
    notice = (ROOT / "NOTICE").read_text()
    assert all(name in notice for name in inside)
    assert "GPL" in notice and "GPL" in (ROOT / "docs/licences.md").read_text()

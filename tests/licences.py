"""The licences of everything that Edgeloop's extras install, as its packages state them.

``python tests/licences.py > docs/licences.json`` writes the list again; ``tests/unit/test_licences.py`` compares.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

# tomli is for Python 3.10 only; the GPU's libraries come with the machine or from NVIDIA, see docs/licences.md
LEFT_OUT = {"tomli", "edgeloop"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(found: Distribution, *, with_extras: bool) -> list[str]:
    """The names that a package asks for; extras only of Edgeloop itself."""
    lines = [line for line in found.requires or () if with_extras or "extra ==" not in line]
    return [canonical(re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0]) for line in lines]


def licence(found: Distribution) -> str:
    """As the package states it: its SPDX expression, else its classifiers, else its free text."""
    facts = found.metadata

    def first(field: str) -> str:
        return next(iter(facts.get_all(field) or ()), "")

    expression = first("License-Expression")
    classifiers = [
        line.rsplit(" :: ", 1)[1] for line in facts.get_all("Classifier") or () if line.startswith("License")
    ]
    text = first("License").strip().split("\n")[0][:80]
    return expression or "; ".join(kind for kind in classifiers if kind != "OSI Approved") or text or "not stated"


@cache
def installed() -> dict[str, str]:
    """Package → licence, of all that is installed and that Edgeloop needs, directly or not."""
    waiting, licences = ["edgeloop"], dict[str, str]()
    seen = set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        waiting += requirements(found, with_extras=name == "edgeloop")
        if name not in LEFT_OUT:
            licences[name] = licence(found)
    return dict(sorted(licences.items()))


if __name__ == "__main__":
    json.dump(installed(), sys.stdout, indent=1)
    sys.stdout.write("\n")

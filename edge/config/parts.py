"""Keys that name a part: one that is built in, or one that an installed package brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import AfterValidator

from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.packages.plugins import Group


def part_name(group: Group, built_in: Sequence[str]) -> AfterValidator:
    """The check of such a key."""

    def check(name: str) -> str:
        if name not in built_in:
            refuse_unknown(group, name, built_in)
        return name

    return AfterValidator(check)


def refuse_unknown(group: Group, name: str, built_in: Sequence[str]) -> None:
    """Nothing of the package is imported.

    Raises:
        ValueError: no installed package brings this part.
    """
    from edge.packages.plugins import find

    try:
        find(group, name, built_in)
    except ConfigError as error:
        raise ValueError(str(error)) from None

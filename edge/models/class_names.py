"""Names of classes: given by the file, a card or a person, never guessed from how many there are."""

from __future__ import annotations

from edge.errors import ManifestError


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes that nobody has named."""
    return tuple(f"class {index}" for index in range(max(0, count)))


def check_count(names: tuple[str, ...], count: int | None, where: str, spare: int = 0) -> tuple[str, ...]:
    """The names that belong to the classes of the list.

    Args:
        names: in the model's order.
        count: how many classes the model has, None where it does not tell.
        where: file and source, for the message.
        spare: names that may stand at the end or be missing there, of what means "no object".

    Raises:
        ManifestError: there are more or fewer.
    """
    if count is None or len(names) == count:
        return names
    if spare and len(names) == count + spare:
        return names[:count]
    if spare and len(names) == count - spare:
        return (*names, "no object")
    raise ManifestError(
        f"{where} has {len(names)} names, the model's output has room for {count} classes; give a list of {count} "
        "names, one a line: edge inspect MODEL --classes FILE"
    )

"""The batch sizes that an engine is built for."""

from __future__ import annotations

from pathlib import Path

from edge.errors import UsageError
from edge.models.manifest import Profile
from edge.models.onnx_graph import GraphFacts

DEFAULT_PROFILE = Profile(min_batch=1, opt_batch=4, max_batch=16)
# the DLA has no dynamic sizes: smallest, likely and largest must be one (NVIDIA, "Working with DLA", restrictions)
DLA_PROFILE = Profile(min_batch=1, opt_batch=1, max_batch=1)


def choose_profiles(
    onnx: Path, facts: GraphFacts, asked: tuple[Profile, ...], *, is_dla: bool = False, most: int | None = None
) -> tuple[Profile, ...]:
    """Batch sizes; those of a graph with a fixed batch are its own. Args: ``most``: the manifest's ``max_batch``.

    Raises:
        UsageError: other sizes were asked of a graph with a fixed batch, more than it takes, or a range of the DLA.
    """
    fixed = facts.inputs[0].shape[0]
    if fixed is None and most is not None:
        if any(item.max_batch > most for item in asked):
            raise UsageError(f"--batch: {onnx.name} takes {most} at once at most, though it leaves the batch open")
        asked = asked or (Profile(min_batch=1, opt_batch=most, max_batch=most),)
    if fixed is None:
        if is_dla:
            _check_dla_profiles(asked)
        return asked or (DLA_PROFILE if is_dla else DEFAULT_PROFILE,)
    only = Profile(min_batch=fixed, opt_batch=fixed, max_batch=fixed)
    if asked and asked != (only,):
        raise UsageError(
            f"--batch: {onnx.name} has a fixed batch of {fixed}; leave --batch out, or export it with a dynamic batch"
        )
    return (only,)


def _check_dla_profiles(asked: tuple[Profile, ...]) -> None:
    for item in asked:
        if not item.min_batch == item.opt_batch == item.max_batch:
            raise UsageError(
                f"--batch {item.min_batch}:{item.opt_batch}:{item.max_batch}: the DLA takes one batch size only; give "
                f"--batch {item.opt_batch}, or leave it out for 1"
            )

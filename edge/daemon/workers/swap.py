"""A model swap over all workers: the first one tries it for all, and either all of them run the new model or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import EdgeError
from edge.pipeline.swap.agreement import Agreement
from edge.pipeline.swap.report import SwapReport
from edge.threads.finish import finish

if TYPE_CHECKING:
    from edge.config.daemon import SwapSettings
    from edge.config.schema import ModelSettings
    from edge.daemon.workers.seat import Seat
    from edge.pipeline.swap.report import Phase

# a swap ends by itself: trial, shadow and probation have limits of their own
LIMIT_S = 100_000.0


class PoolSwap:
    """One swap. Used by one thread.

    Args:
        seats: the workers.
        settings: of the swap.
        before: the model that runs.
    """

    def __init__(self, seats: Sequence[Seat], settings: SwapSettings, before: ModelSettings) -> None:
        self._seats = seats
        self._settings = settings
        self._before = before

    def run(
        self, path: Path, renamed: Mapping[str, str], *, has_trial: bool, on_phase: Callable[[Phase], None]
    ) -> SwapReport:
        """Change the model in the first worker, then in the others at once; blocks until their probations are over.

        Raises:
            EdgeError: a worker is being started again.
        """
        lost = [seat.number for seat in self._seats if seat.process is None]
        if lost or not self._seats:
            raise EdgeError(
                f"worker {lost[0] if lost else 1} is being started again; swap the model when it runs again"
            )
        first, *others = self._seats
        report = self._in_one(first, path, renamed, has_trial=has_trial, on_phase=on_phase)
        if report.outcome != "kept" or not others:
            return report
        reports: dict[int, SwapReport] = {}

        def change(seat: Seat) -> None:
            reports[seat.number] = self._in_one(seat, path, renamed, has_trial=False)

        finish({f"swap in worker {seat.number}": lambda seat=seat: change(seat) for seat in others}, LIMIT_S)  # type: ignore[misc]
        refused = [(number, other) for number, other in reports.items() if other.outcome != "kept"]
        if not refused:
            return report
        number, other = refused[0]
        kept = [first, *(seat for seat in others if reports[seat.number].outcome == "kept")]
        self._back(kept, renamed)
        return replace(report, outcome="rolled back", reason=f"worker {number}: {other.reason}", phase=other.phase)

    def _back(self, seats: Sequence[Seat], renamed: Mapping[str, str]) -> None:
        names = {old: new for new, old in renamed.items()}
        for seat in seats:
            self._in_one(seat, self._before.path, names, has_trial=False)

    def _in_one(
        self,
        seat: Seat,
        path: Path,
        renamed: Mapping[str, str],
        *,
        has_trial: bool,
        on_phase: Callable[[Phase], None] = lambda phase: None,
    ) -> SwapReport:
        process = seat.process
        if process is None:
            return SwapReport(self._before.name, str(path), "refused", "it is being started again", "trial")
        process.on_phase = on_phase
        order = {"name": self._before.name, "path": str(path), "renamed": dict(renamed), "has_trial": has_trial}
        try:
            answer = process.link.ask("swap", LIMIT_S, settings=self._settings.model_dump(mode="json"), **order)
        except EdgeError as error:
            return SwapReport(self._before.name, str(path), "refused", str(error), "trial")
        facts = answer["report"]
        agreement = facts.pop("agreement")
        return SwapReport(**facts, agreement=None if agreement is None else Agreement(**agreement))

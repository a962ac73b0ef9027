"""A bar that shows the loss of each step of a training whose end is not known."""

from __future__ import annotations

from types import TracebackType

from edge.console import err


class StepBar:
    """Appears with the first step; ``losses`` keeps all of them."""

    def __init__(self, title: str) -> None:
        from rich.progress import Progress

        self._title, self._bars, self.losses = title, Progress(console=err), list[float]()

    def __enter__(self) -> StepBar:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def step(self, loss: float) -> None:
        """Take the loss of one step."""
        task = self._bars.add_task(self._title, total=None) if not self.losses else self._bars.tasks[0].id
        self.losses.append(loss)
        self._bars.update(task, advance=1, description=f"{self._title}, {len(self.losses)} steps, loss {loss:.4f}")

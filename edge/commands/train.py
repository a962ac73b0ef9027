"""``edge train``: train a detector, segmenter or classifier by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.console import AsJson, err, out, print_json

if TYPE_CHECKING:
    from export.config import TrainSettings

PACKAGED = ", ".join(sorted(path.stem for path in Path(__file__).parents[2].glob("export/recipes/*.toml")))


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help=f"my-data guesses a recipe from your data; else a TOML file, or a packaged recipe: {PACKAGED}."
        ),
    ],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to it.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the folder's training stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network by a recipe; torchrun uses many processes."""
    import logging
    import os

    from edge.errors import MissingError
    from edge.packages.installed import add_extra

    try:
        from export.config import load_config
        from export.training.train import train as run_training
    except ModuleNotFoundError as error:
        raise MissingError(f"training needs {error.name}; run: {add_extra('train')}") from None

    config = _guessed(changes or []) if recipe == "my-data" else load_config(recipe, changes or [])
    is_main = os.environ.get("RANK", "0") == "0"
    # progress is the command's output here, so the trainer's own log lines are shown
    logging.getLogger("export").setLevel(logging.INFO if is_main else logging.WARNING)
    result = run_training(config, folder or Path("runs") / config.name, resume=resume)
    if not is_main:
        return
    if as_json:
        print_json(
            {
                "checkpoint": str(result.checkpoint),
                "metric": result.metric,
                "best": result.best,
                "best_epoch": result.best_epoch,
                "epochs": result.epochs,
                "metrics": dict(result.metrics),
            }
        )
        return
    out.print(f"{result.metric} {result.best:.4f} after epoch {result.best_epoch} of {result.epochs}")
    err.print(f"checkpoint {result.checkpoint}; next: edge export {result.checkpoint} --out {config.name}.onnx")


def _guessed(changes: list[str]) -> TrainSettings:
    """A recipe made from the data, with what was chosen on standard error."""
    from export.training.guess import guess_recipe

    guess = guess_recipe(changes)
    for reason in guess.reasons:
        err.print(f"- {reason}")
    err.print(f"- about {max(1, round(guess.seconds / 60))} minutes of steps on this machine; judging comes on top")
    return guess.config

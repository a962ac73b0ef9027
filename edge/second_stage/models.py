"""The models that look at crops of objects, not at frames: classifiers (second stage), embeddings (appearance)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge.errors import ConfigError
from edge.model import Model, load_model
from edge.second_stage.classifier import CropClassifier, StreamView
from edge.threads.worker import Worker
from edge.trackers.appearance import CropEmbedder

if TYPE_CHECKING:
    from edge.config.schema import Config, ModelSettings, StreamSettings
    from edge.models.manifest import Manifest


class CropModels:
    """Loads what the streams of a configuration name in ``second_stage.model`` and ``track.appearance_model``."""

    def __init__(self, config: Config, *, is_waiting: bool = False) -> None:
        """Load them.

        Args:
            config: what is to run.
            is_waiting: every stream waits for its labels, as in a replay; otherwise only those that lose no frame do.

        Raises:
            EdgeError: a model cannot be used, or is not of the right kind.
        """
        self._is_waiting = is_waiting
        configs = {model.name: model for model in config.models}
        classifiers = {stream.second_stage.model for stream in config.streams if stream.second_stage is not None}
        embedders = {stream.track.appearance_model for stream in config.streams} - {None}
        self._classifiers = {
            name: CropClassifier(name, _load(configs[name], "classify", "second_stage.model"))
            for name in sorted(classifiers)
        }
        self._embedders = {
            name: _load(configs[name], "embed", "track.appearance_model") for name in sorted(filter(None, embedders))
        }
        self._workers = [Worker(f"second stage {name}", one.run) for name, one in self._classifiers.items()]

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        classifiers = {name: one.model.manifest for name, one in self._classifiers.items()}
        return {**classifiers, **{name: model.manifest for name, model in self._embedders.items()}}

    def view_of(self, stream: StreamSettings, classes: Sequence[str]) -> StreamView | None:
        """The stream's side of its second stage, None where it has none.

        Raises:
            ConfigError: its model was not loaded at the start.
        """
        if stream.second_stage is None:
            return None
        classifier = self._classifiers.get(stream.second_stage.model)
        if classifier is None:
            raise _not_loaded(stream, "second_stage.model", stream.second_stage.model)
        is_waiting = self._is_waiting or stream.is_lossless
        return classifier.view(stream.name, classes, stream.second_stage, is_waiting=is_waiting)

    def embedder_of(self, stream: StreamSettings) -> CropEmbedder | None:
        """What compares the looks of the stream's objects, None where nothing does.

        Raises:
            ConfigError: its model was not loaded at the start.
        """
        name = stream.track.appearance_model
        if name is None:
            return None
        if name not in self._embedders:
            raise _not_loaded(stream, "track.appearance_model", name)
        return CropEmbedder(self._embedders[name].predict)

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self, deadline_s: float) -> bool:
        """End the threads and close the models; False if one did not end by then (``time.monotonic()``)."""
        for worker in self._workers:
            worker.stop()
        have_ended = [worker.join(max(1.0, deadline_s - time.monotonic())) for worker in self._workers]
        if all(have_ended):
            for model in (*(one.model for one in self._classifiers.values()), *self._embedders.values()):
                model.close()
        return all(have_ended)

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        return {
            name: {"answered": one.num_answered, "batches": one.num_batches, "dropped": one.num_dropped}
            for name, one in self._classifiers.items()
        }


def _load(config: ModelSettings, task: str, key: str) -> Model:
    # one thread of its own: the cores belong to the frames
    model = load_model(config.model_copy(update={"threads": config.threads or 1}))
    if model.manifest.task != task:
        model.close()
        wanted = {"classify": "a classifier", "embed": "an embedding model"}[task]
        raise ConfigError(f"{key} = {config.name!r}: {config.path.name} does {model.manifest.task}; expected {wanted}")
    return model


def _not_loaded(stream: StreamSettings, key: str, name: str) -> ConfigError:
    return ConfigError(f"stream {stream.name!r}: {key} = {name!r} was not loaded; restart to load it")

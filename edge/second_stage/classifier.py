"""The second stage at work: classifiers that look at crops of tracked objects, of all streams together.

Cameras never wait for it: crops queue up, a thread of low priority answers them in batches, and a label appears in a
later frame. Streams of which every frame comes out (files, replays) wait, so that their results are the same each time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from edge.errors import EdgeError
from edge.second_stage.crops import CropQueue, CropRequest, CropStage
from edge.types import Classification, Frame, Label, Tracks

if TYPE_CHECKING:
    from edge.config.analytics import SecondStageSettings
    from edge.model import Model

log = logging.getLogger(__name__)
MAX_WAITING = 64
IDLE_S = 0.2
# labels are not urgent: so long the first crop waits for others to fill its batch
LINGER_S = 0.05
# so much less than the frames does it count where cores are scarce
NICENESS = 10

Labels: TypeAlias = Mapping[int, tuple[Label, ...]]
Answers: TypeAlias = tuple[Sequence[CropRequest], Sequence[Classification]]


class CropClassifier:
    """One classifier and the crops that wait for it. Any thread may ask; ``run`` answers.

    Attributes:
        is_broken: its engine failed; nothing is asked any more, and the frames go on without new labels.
        num_answered, num_batches: what was looked at.
    """

    def __init__(self, name: str, model: Model) -> None:
        """Args: its name in the configuration, a classifier that nobody else uses."""
        self.name = name
        self.model = model
        self.is_broken = False
        self.num_answered = self.num_batches = 0
        self._queue = CropQueue(MAX_WAITING)
        self._changed = threading.Condition()
        self._engine = threading.Lock()
        self._views: WeakValueDictionary[str, StreamView] = WeakValueDictionary()

    @property
    def num_dropped(self) -> int:
        """Crops that gave way to newer ones before anybody looked at them."""
        return self._queue.num_dropped

    def view(
        self, stream: str, classes: Sequence[str], settings: SecondStageSettings, *, is_waiting: bool
    ) -> StreamView:
        """A stream's side of it. Args: the stream, its detector's classes, its settings, whether its frames wait."""
        spec = self.model.manifest.input
        stage = CropStage(
            settings,
            stream=stream,
            classes=classes,
            labels=self.model.manifest.classes,
            max_side_px=max(spec.width, spec.height),
        )
        view = StreamView(self, stage, is_waiting=is_waiting)
        self._views[stream] = view
        return view

    def ask(self, requests: Sequence[CropRequest]) -> None:
        """Let crops wait for their turn."""
        with self._changed:
            self._queue.add(requests)
            self._changed.notify()

    def answer(self, requests: Sequence[CropRequest]) -> list[Classification]:
        """Look at crops now; empty where the engine has failed."""
        try:
            with self._engine:
                found = self.model.predict([request.image for request in requests])
        except EdgeError as error:
            self.is_broken = True
            log.error("%s: the second stage has failed, objects get no new labels: %s", self.name, error)
            return []
        self.num_answered += len(requests)
        self.num_batches += 1
        return [answer for answer in found if isinstance(answer, Classification)]

    def run(self, stopping: threading.Event) -> None:
        """Answer what waits until asked to stop, or until the engine fails."""
        _lower_priority()
        while not (stopping.is_set() or self.is_broken):
            requests = self._take()
            answers = self.answer(requests) if requests else []
            if answers:
                self._hand_back(requests, answers)

    def _take(self) -> list[CropRequest]:
        max_batch = self.model.engine.max_batch
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue), IDLE_S)
            if len(self._queue):
                self._changed.wait_for(lambda: len(self._queue) >= max_batch, LINGER_S)
            return self._queue.take(max_batch)

    def _hand_back(self, requests: Sequence[CropRequest], answers: Sequence[Classification]) -> None:
        # a stream that was removed meanwhile is in the list no more
        for stream in {request.stream for request in requests}:
            view = self._views.get(stream)
            if view is not None:
                view.inbox.append((requests, answers))


class StreamView:
    """One stream's side of the second stage. Used by the inference thread, except for ``inbox``.

    Attributes:
        inbox: answers on their way back; those of other streams are passed over.
    """

    def __init__(self, classifier: CropClassifier, stage: CropStage, *, is_waiting: bool) -> None:
        self.inbox: deque[Answers] = deque(maxlen=MAX_WAITING)
        self._classifier = classifier
        self._stage = stage
        self._is_waiting = is_waiting

    def label(self, frame: Frame, tracks: Tracks) -> Labels:
        """Ask about what is worth a look in this frame; what is known of its tracks so far."""
        while self.inbox:
            self._stage.accept(*self.inbox.popleft())
        if not self._classifier.is_broken:
            requests = self._stage.choose(frame, tracks)
            if requests and self._is_waiting:
                answers = self._classifier.answer(requests)
                if answers:
                    self._stage.accept(requests, answers)
            elif requests:
                self._classifier.ask(requests)
        known = ((track_id, self._stage.labels(track_id)) for track_id in tracks.track_id.tolist())
        return {track_id: labels for track_id, labels in known if labels}


def _lower_priority() -> None:
    """Let the frames go first where they share the cores; on Linux a thread has a priority of its own."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except (AttributeError, OSError) as error:
        log.debug("the second stage keeps the usual priority: %s", error)

"""A judge of outcomes in a process of its own: it computes on idle cores, and may be slow or die without harm.

Who asks it loads neither network nor encoder, and is answered by a future.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_vision.errors import RunFailed
from embodied_vision.learning.outcomes_verdict import Verdict
from embodied_vision.learning.processes import ProcessWorker
from embodied_vision.learning.workers import Job, Lost
from embodied_vision.types import RGBD, PickPlace

if TYPE_CHECKING:
    from embodied_vision.learning.outcomes_judge import Judge


@dataclass(frozen=True)
class About:
    """What a judge is for: the task whose actions it judges, and its id."""

    task: str
    classifier_id: str


class JudgeJob:
    """What the judge's process does: None is answered with `About`, frames and an action with a verdict."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __call__(self, item: tuple[Sequence[RGBD], Sequence[RGBD], PickPlace] | None) -> About | Verdict:
        classifier = self._judge.classifier
        return About(classifier.task, classifier.classifier_id) if item is None else self._judge.judge(*item)


def load_judge(classifier: str, encoder: str) -> JudgeJob:
    """Load a classifier of outcomes and its encoder into this process, which then gives way to all others.

    Raises:
        CheckpointError: the classifier is missing or damaged, or was trained with another encoder.
        EncoderError: the encoder cannot be loaded.
    """
    # What this needs is loaded only in the process that judges.
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.learning import outcomes
    from embodied_vision.learning.learner_priority import give_way
    from embodied_vision.learning.outcomes_judge import Judge

    use_cores(1)
    job = JudgeJob(Judge(outcomes.load(Path(classifier)), load_encoder(encoder)))
    give_way()
    return job


class JudgeProcess:
    """Asks a judge in another process, which is started at the first question, and again after it was lost.

    Args:
        make: makes its job, see `load_judge`; pickled, so from a module that can be imported.
    """

    def __init__(self, make: Callable[[], Job[Any, Any]]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "judge")
        self._lock = threading.Lock()
        self._worker: ProcessWorker | None = None
        self._closed = False

    @classmethod
    def of(cls, classifier: Path, encoder: str) -> JudgeProcess:
        """One that loads a classifier's folder, and an encoder by name or folder."""
        return cls(partial(load_judge, str(classifier), encoder))

    def about(self, timeout_s: float) -> About:
        """What the judge is for; loads it.

        Raises:
            CheckpointError: it cannot be loaded, or was trained with another encoder.
            EncoderError: the encoder cannot be loaded.
            RunFailed: its process ended, or did not answer in time.
        """
        future = self._thread.submit(self._ask, None)
        try:
            found = future.result(timeout_s)
        except TimeoutError as error:
            self.drop()
            raise RunFailed(f"the judge of outcomes is not loaded after {timeout_s:.0f} s") from error
        assert isinstance(found, About)
        return found

    def ask(self, before: Sequence[RGBD], after: Sequence[RGBD], action: PickPlace) -> Future[Verdict]:
        """Have an action judged; the arguments are those of `Judge.judge`.

        The future raises `RunFailed` when the process ended, and what the judge raised.
        """
        return self._thread.submit(self._ask, (tuple(before), tuple(after), action))

    def drop(self) -> None:
        """End the process, whatever it does; whoever waits for it is told, and the next question starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.kill()

    def close(self) -> None:
        """End the process, and start none any more."""
        self._closed = True
        self.drop()
        self._thread.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            if self._worker is not None:
                self._worker.stop()
            self._worker = None

    def _ask(self, item: Any) -> Any:
        """In the thread, the only one that speaks to the process."""
        try:
            worker = self._ready()
            worker.give(item)
            return worker.take()
        except Lost as error:
            self._end()
            raise RunFailed(f"the judge of outcomes was lost: {error}") from error

    def _ready(self) -> ProcessWorker:
        if self._worker is not None and not self._worker.pipe.poll():
            return self._worker
        self._end()  # one that has something to say unasked has ended
        with self._lock:
            if self._closed:
                raise RunFailed("the judge of outcomes was closed")
            self._worker = worker = ProcessWorker(self._make)
        try:
            worker.take()  # None, when it is ready
        except BaseException:
            self._end()
            raise
        return worker

    def _end(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

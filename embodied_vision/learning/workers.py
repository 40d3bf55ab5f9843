"""Workers do one job on many items: in this process, in processes, or on a Ray cluster.

Each worker makes its job once, an environment or a policy for instance, and calls it for one item after another.
Nothing is shared between workers, and results do not depend on how many there are; only their order does.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from embodied_vision.errors import EmbodiedVisionError, Refused, RunFailed

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

Job = Callable[[Item], Result]
"""What a worker does with an item. Its method `close`, if it has one, is called at the end."""
Settle = Callable[[Item], Result | None]
"""Asked about the item that a lost worker had: its result, when the worker got as far as that, else None."""

LOSSES = 3
"""A run is given up when workers are lost this many times on one item, or in a row before they are ready."""

_log = logging.getLogger(__name__)


class Lost(Exception):
    """A worker ended before it gave its result: killed, out of memory, or its machine went away."""


class Workers(ABC, Generic[Item, Result]):
    """A number of workers that do the same job; a context manager that ends them."""

    @abstractmethod
    def run(self, items: Iterable[Item]) -> Iterator[Result]:
        """The job's result for every item, in the order in which they are finished.

        Raises:
            RunFailed: workers get lost again and again.
            Exception: whatever the job raises.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Here(Workers[Item, Result]):
    """One worker: this process.

    Args:
        make: makes the job, when the first item comes.
    """

    def __init__(self, make: Callable[[], Job[Item, Result]]) -> None:
        self._make = make
        self._job: Job[Item, Result] | None = None

    def run(self, items: Iterable[Item]) -> Iterator[Result]:
        """See `Workers`."""
        for item in items:
            if self._job is None:
                self._job = self._make()
            yield self._job(item)

    def close(self) -> None:
        """See `Workers`."""
        job, self._job = self._job, None
        end(job)


class Worker(Protocol):
    """One worker somewhere else. Its first result, None, comes by itself when it is ready for items."""

    def give(self, item: Any) -> None:
        """Let it work on an item; a loss shows in `take`."""
        ...

    def take(self) -> Any:
        """The result, after `Backend.wait` named this worker.

        Raises:
            Lost: the worker is gone.
            Exception: what the job raised.
        """
        ...

    def stop(self) -> None:
        """End it now, whatever it does."""
        ...


class Backend(Protocol):
    """A place where workers can be started."""

    def start(self) -> Worker:
        """A new worker, which may not be ready yet."""
        ...

    def wait(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        """Block until some of these have a result or are lost, and return them."""
        ...

    def close(self) -> None:
        """Let go of the place; its workers have been stopped."""
        ...


class Pool(Workers[Item, Result]):
    """Workers of a backend, never more than there are items; each has one item at a time.

    A lost worker is replaced, and its item goes to another, unless `settle` knows its result.

    Args:
        backend: where the workers are started.
        count: how many at most.
        settle: see `Settle`.
    """

    def __init__(self, backend: Backend, count: int, settle: Settle[Item, Result] | None = None) -> None:
        self._backend = backend
        self._count = count
        self._settle = settle
        self._idle: list[Worker] = []
        self._busy: dict[Worker, Item | None] = {}
        self._losses: dict[Item | None, int] = {}

    def run(self, items: Iterable[Item]) -> Iterator[Result]:
        """See `Workers`; a job's exception ends its worker."""
        waiting = deque(items)
        while waiting or any(item is not None for item in self._busy.values()):
            self._start(len(waiting))
            while waiting and self._idle:
                worker = self._idle.pop()
                self._busy[worker] = waiting.popleft()
                worker.give(self._busy[worker])
            for worker in self._backend.wait(list(self._busy)):
                item = self._busy.pop(worker)
                try:
                    result = worker.take()
                except Lost as error:
                    worker.stop()
                    self._count_loss(item, error)
                    if item is None:
                        continue
                    result = None if self._settle is None else self._settle(item)
                    if result is None:
                        waiting.appendleft(item)
                    else:
                        yield result
                    continue
                except BaseException:
                    worker.stop()
                    raise
                self._idle.append(worker)
                if item is None:
                    self._losses.pop(None, None)
                else:
                    yield result

    def _start(self, waiting: int) -> None:
        working = sum(item is not None for item in self._busy.values())
        for _ in range(min(self._count, waiting + working) - len(self._busy) - len(self._idle)):
            self._busy[self._backend.start()] = None

    def _count_loss(self, item: Item | None, error: Lost) -> None:
        self._losses[item] = self._losses.get(item, 0) + 1
        where = "before it was ready" if item is None else f"at {item}"
        if self._losses[item] >= LOSSES:
            raise RunFailed(
                f"{error} {where}, for the {LOSSES}rd time; is there too little memory for {self._count} workers? "
                "use fewer of them and run the same command again"
            ) from error
        _log.warning("%s %s; another takes its place", error, where)

    def close(self) -> None:
        """See `Workers`."""
        workers = (*self._busy, *self._idle)
        self._busy, self._idle = {}, []
        for worker in workers:
            worker.stop()
        self._backend.close()


def outcome(call: Callable[[], Any]) -> tuple[bool, Any]:
    """What a call gives in a worker: (True, result), or (False, exception) with its trace.

    Errors of this package and of the operating system stay what they are; any other becomes a `RunFailed`.
    """
    try:
        return True, call()
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, Refused) or not isinstance(error, EmbodiedVisionError | OSError):
            return False, RunFailed(f"in a worker:\n{trace}")
        error.add_note(f"in a worker:\n{trace}")
        return False, error


def end(job: object) -> None:
    """Call the method `close` of a job that has one."""
    close = getattr(job, "close", None)
    if close is not None:
        close()

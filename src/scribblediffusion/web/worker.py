"""One thread owns the model: runs wait in a bounded queue, and tell where they are.

    worker = Worker(paint, most=16, mine=2)
    job = worker.submit("visitor", order)     # or Busy is raised
    async for news in job.news():             # Waiting, Running …, then Finished or Failed
        ...
    job.stop.set()                            # takes effect within a step

A job's news is a snapshot: whoever listens slowly misses snapshots, and nobody waits for him.
No state of torch leaves the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from scribblediffusion.errors import ScribbleError
from scribblediffusion.web.clearly import clearly

_log = logging.getLogger(__name__)
#: Seconds after which whoever waits is told the same again: only then does Gradio see who left.
_PULSE = 3.0


class Busy(ScribbleError):
    """The queue is full, or this visitor has enough runs in it."""


@dataclass(frozen=True)
class Waiting:
    """In the queue; `ahead` runs come first (the one that goes on included)."""

    ahead: int


@dataclass(frozen=True)
class Running:
    """A step is done.

    Attributes:
        step: steps done so far.
        count: steps of the run.
        noise: share of noise that remained at this step, 0…1; None before the first.
        frame: the newest live value of the explorer, or None.
    """

    step: int
    count: int
    noise: float | None = None
    frame: dict[str, Any] | None = None


@dataclass(frozen=True)
class Finished:
    """The run has ended; `result` is what the painter gave."""

    result: Any


@dataclass(frozen=True)
class Failed:
    """The run came to nothing; `message` is a sentence for people."""

    message: str


News = Waiting | Running | Finished | Failed


class Job:
    """One run in the queue: of one visitor, stopped by setting `stop`.

    Args:
        visitor: whose run it will be.
        order: what is asked for.
        among: whose runs it is counted among; by default the visitor's.
    """

    def __init__(self, visitor: str, order: Any, among: str = "") -> None:
        self.visitor, self.among = visitor, among or visitor
        self.order = order
        self.stop = threading.Event()
        self._state: News = Waiting(0)
        self._listener: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()

    @property
    def state(self) -> News:
        """The newest snapshot."""
        return self._state

    def tell(self, state: News) -> None:
        """Replace the snapshot and wake whoever listens."""
        with self._lock:
            self._state = state
            listener = self._listener
        if isinstance(state, Finished | Failed):
            self._done.set()
        if listener is not None:
            loop, wake = listener
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake.set)

    def wait(self, timeout: float | None = None) -> News:
        """Block until the run has ended (or the time is up), for callers without a loop."""
        self._done.wait(timeout)
        return self._state

    async def news(self) -> AsyncIterator[News]:
        """Snapshots as they come, at times one again; ends after `Finished` or `Failed`."""
        wake = asyncio.Event()
        with self._lock:
            self._listener = (asyncio.get_running_loop(), wake)
        wake.set()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), _PULSE)
            wake.clear()
            state = self._state
            yield state
            if isinstance(state, Finished | Failed):
                return


class Worker:
    """The thread that runs jobs one after another.

    Args:
        paint: ``paint(job)`` runs it, tells `Running`, looks at `job.stop`, returns the result.
        most: jobs that may wait.
        mine: jobs that one visitor may have, the one that goes on included; those of visitor ""
            (programs that nobody tells apart) are not counted.
        prepare: called once in the thread before the first job, such as loading the model.
    """

    def __init__(
        self,
        paint: Callable[[Job], Any],
        *,
        most: int,
        mine: int,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._paint, self._prepare = paint, prepare
        self._most, self._mine = most, mine
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="scribble-model", daemon=True)
        self._thread.start()

    def submit(self, visitor: str, order: Any, among: str = "") -> Job:
        """Put a run into the queue; the arguments are those of a `Job`.

        Raises:
            Busy: there is no room for it.
        """
        job = Job(visitor, order, among)
        with self._changed:
            if self._closed:
                raise Busy("the studio is closing; start it again to draw on")
            own = sum(j.among == job.among for j in self._jobs()) if job.among else 0
            if own >= self._mine:
                raise Busy(
                    f"you have {own} pictures under way; wait for one, or stop it, then ask again"
                )
            if len(self._waiting) >= self._most:
                raise Busy(
                    f"the studio is full: {len(self._waiting)} pictures are waiting; "
                    "try again in a minute"
                )
            self._waiting.append(job)
            self._tell_places()
            self._changed.notify()
        return job

    def withdraw(self, job: Job) -> None:
        """Take a job out that still waits; one that goes on is left alone."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.tell(Failed("stopped before it began: there is no picture"))
                self._tell_places()

    def jobs_of(self, visitor: str) -> tuple[Job, ...]:
        """What a visitor has under way, the one that goes on first."""
        with self._changed:
            own = (job for job in self._jobs() if job.visitor == visitor)
            return tuple(job for job in own if not isinstance(job.state, Finished | Failed))

    def stop(self, visitor: str) -> None:
        """Stop all that a visitor has under way: within a step, or before it begins."""
        for job in self.jobs_of(visitor):
            job.stop.set()
            self.withdraw(job)

    def close(self, timeout: float = 10) -> None:
        """Stop the run that goes on, drop those that wait, and end the thread."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.tell(Failed("the studio was closed"))
            self._waiting.clear()
            if self._current is not None:
                self._current.stop.set()
            self._changed.notify()
        self._thread.join(timeout)

    def _jobs(self) -> list[Job]:
        return [*([self._current] if self._current else []), *self._waiting]

    def _tell_places(self) -> None:
        before = 1 if self._current else 0
        for place, job in enumerate(self._waiting):
            job.tell(Waiting(place + before))

    def _loop(self) -> None:
        if self._prepare is not None:
            try:
                self._prepare()
            except Exception:  # noqa: BLE001 (the first run will say it to who asks)
                _log.exception("the model could not be loaded beforehand")
        while (job := self._next()) is not None:
            try:
                job.tell(Finished(self._paint(job)))
            except ScribbleError as error:
                _log.info("a run came to nothing: %s", error)
                job.tell(Failed(clearly(error)))
            except Exception:  # noqa: BLE001 (one bad run must not end the thread)
                _log.exception("a run failed")
                job.tell(Failed("something went wrong inside; the server's log says what"))
            finally:
                with self._changed:
                    self._current = None
            del job  # its attention is let go of, and not held until the next one comes

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            job = self._current = self._waiting.popleft()
            self._tell_places()
            return job

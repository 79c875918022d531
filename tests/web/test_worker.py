"""The queue: places, bounds, stopping, and that one bad run does not end the thread."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from scribblediffusion.errors import SamplingError
from scribblediffusion.web.painter import LiveBudget
from scribblediffusion.web.worker import Busy, Failed, Finished, Job, Running, Waiting, Worker


class Gate:
    """A painter that paints one step whenever it is let."""

    def __init__(self) -> None:
        self.let = threading.Semaphore(0)
        self.threads: set[int] = set()
        self.order: list[str] = []

    def __call__(self, job: Job) -> str:
        self.threads.add(threading.get_ident())
        self.order.append(job.order)
        for step in range(3):
            self.let.acquire(timeout=5)
            job.tell(Running(step + 1, 3, 1 - step / 3))
            if job.stop.is_set():
                return f"{job.order} stopped at {step + 1}"
        if job.order == "bad":
            raise SamplingError("there is no picture")
        if job.order == "worse":
            raise RuntimeError("a secret of the server")
        return f"{job.order} done"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def worker(gate: Gate) -> Iterator[Worker]:
    made = Worker(gate, most=3, mine=2)
    yield made
    gate.let.release(100)
    made.close()


def begun(gate: Gate, count: int) -> None:
    until = time.time() + 5
    while len(gate.order) < count and time.time() < until:
        time.sleep(0.005)
    assert len(gate.order) == count


def test_one_after_another_in_one_thread(worker: Worker, gate: Gate) -> None:
    jobs = [worker.submit(f"visitor {i}", f"picture {i}") for i in range(3)]
    begun(gate, 1)
    assert [job.state for job in jobs[1:]] == [Waiting(1), Waiting(2)]
    gate.let.release(9)
    assert [job.wait(5) for job in jobs] == [Finished(f"picture {i} done") for i in range(3)]
    assert gate.order == ["picture 0", "picture 1", "picture 2"]
    assert len(gate.threads) == 1
    assert threading.get_ident() not in gate.threads


def test_overload_is_refused_with_a_sentence(worker: Worker, gate: Gate) -> None:
    worker.submit("first", "a")
    begun(gate, 1)
    for i in range(3):
        worker.submit(f"other {i}", "b")
    with pytest.raises(Busy, match="3 pictures are waiting; try again"):
        worker.submit("one more", "c")


def test_one_visitor_may_not_fill_the_queue(worker: Worker) -> None:
    worker.submit("greedy", "a")
    worker.submit("greedy", "b")
    with pytest.raises(Busy, match="you have 2 pictures under way"):
        worker.submit("greedy", "c")
    worker.submit("another", "d")


def test_stop_takes_effect_within_a_step(worker: Worker, gate: Gate) -> None:
    job = worker.submit("visitor", "a")
    gate.let.release()
    begun(gate, 1)
    job.stop.set()
    gate.let.release()
    ended = job.wait(5)
    assert isinstance(ended, Finished)
    assert ended.result in ("a stopped at 1", "a stopped at 2")


def test_one_that_waits_can_be_withdrawn(worker: Worker, gate: Gate) -> None:
    worker.submit("first", "a")
    begun(gate, 1)
    second, third = worker.submit("second", "b"), worker.submit("third", "c")
    worker.withdraw(second)
    assert isinstance(second.state, Failed)
    assert third.state == Waiting(1)
    gate.let.release(6)
    assert third.wait(5) == Finished("c done")
    assert gate.order == ["a", "c"]


def test_errors_are_sentences_and_the_thread_goes_on(
    worker: Worker, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.let.release(9)
    assert worker.submit("v", "bad").wait(5) == Failed("there is no picture")
    failed = worker.submit("v", "worse").wait(5)
    assert isinstance(failed, Failed)
    assert "secret" not in failed.message
    assert "a secret of the server" in caplog.text
    assert worker.submit("v", "good").wait(5) == Finished("good done")


def test_news_end_and_slow_listeners_miss_snapshots(worker: Worker, gate: Gate) -> None:
    async def listen() -> list[object]:
        job, heard = worker.submit("visitor", "a"), []
        async for news in job.news():
            heard.append(news)
            gate.let.release(3)
            await asyncio.sleep(0.05)
        return heard

    heard = asyncio.run(listen())
    assert heard[-1] == Finished("a done")
    assert len(heard) <= 5


def test_closing_stops_what_goes_on_and_drops_the_rest(gate: Gate) -> None:
    worker = Worker(gate, most=3, mine=3)
    jobs = [worker.submit("v", name) for name in ("a", "b")]
    begun(gate, 1)
    threading.Timer(0.05, gate.let.release, (5,)).start()
    worker.close()
    assert isinstance(jobs[0].wait(1), Finished)
    assert jobs[1].wait(1) == Failed("the studio was closed")
    with pytest.raises(Busy, match="closing"):
        worker.submit("v", "c")


def test_live_frames_stay_within_their_share() -> None:
    now = 0.0

    def clock() -> float:
        return now

    budget, made = LiveBudget(0.05, clock), 0
    for _ in range(200):
        now += 0.1  # a step

        def frame() -> None:
            nonlocal now, made
            now += 0.02
            made += 1

        if budget.due():
            budget.make(frame)
    assert made * 0.02 <= 0.05 * now
    assert made >= 40


def test_stop_ends_all_that_one_visitor_asked_for(worker: Worker, gate: Gate) -> None:
    first, second = worker.submit("ada", "a"), worker.submit("ada", "b")
    other = worker.submit("bob", "c")
    begun(gate, 1)
    worker.stop("ada")
    assert isinstance(second.wait(5), Failed)
    gate.let.release(9)
    assert first.wait(5) == Finished("a stopped at 1")
    assert other.wait(5) == Finished("c done")
    assert worker.jobs_of("ada") == worker.jobs_of("bob") == ()


def test_a_run_that_has_ended_is_not_held(worker: Worker, gate: Gate) -> None:
    job = worker.submit("ada", "one")
    gate.let.release(3)
    assert isinstance(job.wait(5), Finished)
    gone = weakref.ref(job)
    del job
    until = time.time() + 5
    while gone() is not None and time.time() < until:
        time.sleep(0.005)
    assert gone() is None


def test_who_waits_is_told_again_so_that_it_is_seen_who_left(worker, gate, monkeypatch) -> None:
    monkeypatch.setattr("scribblediffusion.web.worker._PULSE", 0.01)
    worker.submit("ada", "first")
    begun(gate, 1)
    job = worker.submit("bob", "second")

    async def heard() -> list[object]:
        news = job.news()
        told = [await anext(news) for _ in range(3)]
        await news.aclose()
        worker.withdraw(job)
        return told

    assert asyncio.run(heard()) == [Waiting(1)] * 3
    assert isinstance(job.state, Failed)


def test_runs_of_new_visitors_are_counted_by_where_they_ask_from(worker) -> None:
    for visitor in ("one", "two"):
        worker.submit(visitor, "", among="10.0.0.1")
    with pytest.raises(Busy, match="2 pictures under way"):
        worker.submit("three", "", among="10.0.0.1")
    worker.submit("four", "", among="10.0.0.2")
    assert len(worker.jobs_of("one")) == 1

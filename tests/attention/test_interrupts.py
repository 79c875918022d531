"""Ctrl-C and other threads while hooks come and go."""

import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_pipelines import stable_diffusion

from scribblediffusion.attention import attaching
from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.guard import unbroken
from scribblediffusion.attention.intervention import KnockOut
from scribblediffusion.errors import CaptureError


@pytest.fixture(scope="module")
def pipe() -> Any:
    return stable_diffusion()


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def hooks(pipe: Any) -> int:
    modules = [*pipe.unet.modules(), *pipe.text_encoder.modules()]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def watching(pipe: Any) -> Any:
    return RealAttentionExtractor(pipe)


def silencing(pipe: Any) -> Any:
    return KnockOut(pipe, "apple")


@pytest.mark.parametrize("made", [watching, silencing])
@pytest.mark.parametrize("when", ["attach", "close"])
def test_control_c_while_hooks_come_or_go_leaves_none(
    made: Any, when: str, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(attaching.ExitStack):
        """Half of the hooks are there, or gone, when the signal comes."""

        count = 0

        def callback(self, *args: Any, **kwargs: Any) -> Any:
            type(self).count += 1
            if when == "attach" and self.count == 3:
                signal.raise_signal(signal.SIGINT)
            return super().callback(*args, **kwargs)

        def close(self) -> None:
            if when == "close":
                super().callback(signal.raise_signal, signal.SIGINT)
            super().close()

    before = hooks(pipe)
    monkeypatch.setattr(attaching, "ExitStack", Interrupted)
    with pytest.raises(KeyboardInterrupt), made(pipe):
        pass
    assert hooks(pipe) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    with made(pipe):  # nobody holds it
        assert hooks(pipe) > before
    assert hooks(pipe) == before


def test_control_c_is_held_back_and_then_comes() -> None:
    done = []

    def work() -> None:
        with unbroken():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_another_thread_has_nothing_to_hold_back() -> None:
    handlers = []

    def work() -> None:
        with unbroken():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_threads_that_attach_at_once_are_refused_by_name(pipe: Any) -> None:
    """Five of six, at most; never an error of Python's own dictionaries."""
    wrong: list[Exception] = []

    def attach() -> None:
        for _ in range(40):
            try:
                with RealAttentionExtractor(pipe.unet):
                    pass
            except Exception as error:  # noqa: BLE001
                if not (isinstance(error, CaptureError) and "another extractor" in str(error)):
                    wrong.append(error)

    before, interval = hooks(pipe), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=attach) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert hooks(pipe) == before
    assert torch.is_grad_enabled()

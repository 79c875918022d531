"""Which prompt each row of the guidance batch came from, told by the embeddings themselves.

Hooks on the text encoders note the token numbers that go in and a few channels of every hidden
state that comes out. A row of the denoiser's condition belongs to the prompt whose states it
repeats; which of its positions repeat which token gives each key its token. So neither the order
of the batch (which differs between pipelines) nor the number of encoders has to be known. A text
is believed only if the tokenizer makes these very numbers of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from scribblediffusion.attention.guard import SURVIVABLE, Mixed, reason
from scribblediffusion.attention.layout import prompt_record
from scribblediffusion.attention.records import Prompt, Token
from scribblediffusion.attention.sight import at_work, texts_in_sight
from scribblediffusion.prompt import Reading, read

_log = logging.getLogger(__name__)

#: Channels of a hidden state that are kept to know it again.
_CHANNELS = 16
#: Encoder calls that are remembered.
_CALLS = 24


@dataclass
class Encoded:
    """One call of a text encoder.

    Attributes:
        encoder: Its name in the pipeline, ``text_encoder_2``.
        ids: ``[B, S]`` token numbers.
        states: Leading channels ``[B, S, ≤16]`` of every hidden state seen.
        width: All channels of a hidden state.
        readings: The prompt of each row, read by the tokenizer that belongs to the encoder.
        wanted: Of each row, whether it is a prompt (True), a negative one (False) or unclear.
        run: Number of the run that it was made for.
        first: Whether it was the encoder's first call for that run: pipelines encode the prompt
            before the negative one. None where no pipeline made the call.
    """

    encoder: str
    ids: Tensor
    states: list[Tensor] = field(default_factory=list)
    width: int = 0
    readings: list[Reading | None] = field(default_factory=list)
    wanted: list[bool | None] = field(default_factory=list)
    run: int = 0
    first: bool | None = True


@dataclass(frozen=True)
class Row:
    """What one row of the condition turned out to be.

    Attributes:
        prompt: Tokens and words by key; `named` is False if no encoder call fits.
        positive: True for a prompt, False for a negative one or for zeros, None if both fit or
            nothing was there to compare with.
    """

    prompt: Prompt
    positive: bool | None


@dataclass(frozen=True)
class _Fit:
    """A row of an encoder call, and the key of each of its tokens (key → position)."""

    call: Encoded
    row: int
    where: dict[int, int]


class EncoderWatch:
    """Hooks on the text encoders of a pipeline, and what they saw.

    What cannot be read is told and leaves tokens without names; the run goes on.

    Args:
        pipe: The pipeline.
        admit: Called before each encoder call; raises `Mixed` where the thread must not go on.
        notice: Called with a sentence about what could not be read.
    """

    def __init__(
        self,
        pipe: Any,
        admit: Callable[[], None] = lambda: None,
        notice: Callable[[str], None] = _log.warning,
    ) -> None:
        self._pipe = pipe
        self._admit, self._notice = admit, notice
        self._calls: list[Encoded] = []
        self._open: dict[tuple[str, int], Encoded] = {}  # by encoder and thread
        self._run = 0
        self._run_began = False

    def attach(self, stack: ExitStack) -> None:
        """Register the hooks of every ``text_encoder…`` component; the stack removes them."""
        for name, encoder, tokenizer in _encoders(self._pipe):
            begin = _Begin(self, name, tokenizer)
            end = _End(self, name)
            stack.callback(encoder.register_forward_pre_hook(begin, with_kwargs=True).remove)
            stack.callback(encoder.register_forward_hook(end).remove)
            for path, module in encoder.named_modules():
                # Skipped layers are normed by a call of this module from outside the encoder.
                if path.endswith("final_layer_norm") and "encoder." not in f"{path}.":
                    stack.callback(module.register_forward_hook(end).remove)

    def begins(self, name: str, tokenizer: Any, ids: Tensor) -> None:
        """An encoder is called with these token numbers."""
        if at_work(self._pipe) is not None:  # not where another pipeline shares the encoder
            self._admit()
        try:
            self._begins(name, tokenizer, ids)
        except Mixed:
            raise
        except SURVIVABLE as error:
            self._lost(name, error)

    def _begins(self, name: str, tokenizer: Any, ids: Tensor) -> None:
        mine = name, threading.get_ident()
        self._open.pop(mine, None)
        self._run += self._run_began
        self._run_began = False
        known = [c for c in self._calls if c.run == self._run and c.encoder == name]
        texts = texts_in_sight(self._pipe)
        seen = texts.prompts + texts.negatives
        # A person who calls an encoder may begin with either prompt.
        call = Encoded(name, ids, run=self._run, first=not known if seen else None)
        for row in ids.tolist():
            reading = self._read(name, tokenizer, row, seen)
            call.readings.append(_as_given(reading, texts.given))
            call.wanted.append(None if reading is None else texts.wanted(reading.text))
        self._open[mine] = call
        self._calls = [*self._calls, call][-_CALLS:]

    def _read(
        self, name: str, tokenizer: Any, ids: Sequence[int], texts: Sequence[str]
    ) -> Reading | None:
        """The words of one row; None without a tokenizer, or one that cannot be asked."""
        if tokenizer is None:
            return None
        try:
            return read(tokenizer, ids, texts)
        except SURVIVABLE as error:
            self._lost(name, error)
            return None

    def _lost(self, name: str, error: BaseException) -> None:
        self._notice(f"the words of {name} could not be read: {reason(error)}")

    def ends(self, name: str, output: Any) -> None:
        """An encoder, or its last norm, gave hidden states."""
        try:
            self._ends(name, output)
        except SURVIVABLE as error:
            self._lost(name, error)

    def _ends(self, name: str, output: Any) -> None:
        call = self._open.get((name, threading.get_ident()))
        if call is None:
            return
        for state in _states(output):
            if state.ndim == 3 and state.shape[:2] == call.ids.shape:
                call.states.append(state[..., :_CHANNELS].detach().float())
                call.width = state.shape[-1]

    def run_begins(self) -> None:
        """The denoiser is at work: encoder calls from now on are for the next run."""
        self._run_began = True

    def rows(self, condition: Tensor) -> list[Row]:
        """Every row of a condition ``[B, T, C]``."""
        return [self._row(row) for row in condition.detach()]

    def _row(self, row: Tensor) -> Row:
        """The best fitting encoder calls of one row, one for each encoder, newest run first."""
        for run in sorted({call.run for call in self._calls}, reverse=True):
            best: dict[str, _Fit] = {}
            wanted: set[bool | None] = set()
            calls: set[int] = set()
            for fit in self._fits(row, run):
                clear = fit.call.wanted[fit.row]
                wanted.add(fit.call.first if clear is None else clear)
                calls.add(id(fit.call))
                known = best.get(fit.call.encoder)
                if known is None or len(fit.where) > len(known.where):
                    best[fit.call.encoder] = fit
            if best:
                record = _record(list(best.values()), self._beside(row, run, best), row.shape[0])
                # Two calls of one encoder with the same result: prompt and negative are equal.
                clear = len(wanted) == 1 and len(calls) == len(best)
                return Row(record, wanted.pop() if clear else None)
        return Row(Prompt(named=False), False if self._calls else None)

    def _beside(self, row: Tensor, run: int, best: Mapping[str, _Fit]) -> list[_Fit]:
        """Encoders whose states stand behind another's in the channels of the same keys (SDXL)."""
        found: dict[str, _Fit] = {}
        for width in sorted({fit.call.width for fit in best.values()}):
            for fit in self._fits(row[:, width:], run) if width < row.shape[1] else ():
                if fit.call.encoder not in best:
                    found.setdefault(fit.call.encoder, fit)
        return list(found.values())

    def _fits(self, row: Tensor, run: int) -> Iterator[_Fit]:
        """Rows of encoder calls whose states the condition repeats, nearly all of them."""
        leading = row[:, :_CHANNELS].float()
        for call in (c for c in self._calls if c.run == run):
            for j in range(call.ids.shape[0]):
                where = _alignment(leading, call, j)
                if len(where) >= 0.9 * min(row.shape[0], call.ids.shape[1]):
                    yield _Fit(call, j, where)


class _Begin:
    """Pre-hook of a text encoder."""

    def __init__(self, watch: EncoderWatch, name: str, tokenizer: Any) -> None:
        self._watch, self._name, self._tokenizer = watch, name, tokenizer

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point():
            self._watch.begins(self._name, self._tokenizer, ids)


class _End:
    """Hook of a text encoder or of its last norm."""

    def __init__(self, watch: EncoderWatch, name: str) -> None:
        self._watch, self._name = watch, name

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._watch.ends(self._name, output)


def _encoders(pipe: Any) -> Iterator[tuple[str, nn.Module, Any]]:
    """(name, text encoder, its tokenizer) of a pipeline."""
    for suffix in ("", "_2", "_3", "_4"):
        encoder = getattr(pipe, f"text_encoder{suffix}", None)
        if isinstance(encoder, nn.Module):
            yield f"text_encoder{suffix}", encoder, getattr(pipe, f"tokenizer{suffix}", None)


def _as_given(reading: Reading | None, given: Sequence[str]) -> Reading | None:
    """Without what a pipeline itself put before the prompt: Sana instructs its language model."""
    if reading is None:
        return None
    text = reading.text.lower()
    ends = [t.strip().lower() for t in given if t.strip()]
    before = len(text) - len(max((t for t in ends if text.endswith(t)), key=len, default=text))
    # Small letters may be more than the capitals that they are of: "İ" has two.
    lengths = (len(reading.text[:i].lower()) for i in range(len(reading.text) + 1))
    start = next(i for i, length in enumerate(lengths) if length >= before)
    return reading.after(start) if reading.text[:start].strip() else reading


def _states(output: Any) -> Iterator[Tensor]:
    """Every hidden state of an encoder's output, the last one first."""
    if isinstance(output, Tensor):
        yield output
        return
    last = getattr(output, "last_hidden_state", None)
    if isinstance(last, Tensor):
        yield last
    yield from getattr(output, "hidden_states", None) or ()
    if isinstance(output, tuple):
        yield from (x for x in output if isinstance(x, Tensor))


def _alignment(row: Tensor, call: Encoded, j: int) -> dict[int, int]:
    """Key → token position, where the condition repeats a state of row `j`; the best state's."""
    best: dict[int, int] = {}
    for state in call.states:
        width = min(row.shape[-1], state.shape[-1])
        where = _aligned(row[:, :width], state[j, :, :width].to(row.device))
        if len(where) > len(best):
            best = where
    return best


def _aligned(row: Tensor, state: Tensor) -> dict[int, int]:
    """Keys and tokens that agree, both in increasing order."""
    size = state.abs().amax().clamp_min(1e-6)
    equal = (torch.cdist(row, state, p=torch.inf) <= 5e-3 * size).tolist()
    where: dict[int, int] = {}
    last = -1
    for key, hits in enumerate(equal):
        after = next((p for p in range(last + 1, len(hits)) if hits[p]), None)
        if after is not None:
            where[key], last = after, after
    return where


def _record(found: Sequence[_Fit], beside: Sequence[_Fit], length: int) -> Prompt:
    """Tokens and words by key, from every encoder that gave keys; a key has one token.

    Encoders `beside` others share keys with them: they add the words of a prompt of their own.
    """
    taken: set[int] = set()
    readings: list[tuple[Reading, list[int]]] = []
    for fit in found:
        reading = fit.call.readings[fit.row]
        own = {k: p for k, p in fit.where.items() if k not in taken}
        if reading is None or not own:
            continue
        taken |= set(own)
        readings.append(_with_keys(reading, own))
    if not readings:
        return Prompt(named=False)
    more = [(fit.call.readings[fit.row], fit.where) for fit in beside]
    prompt = prompt_record(readings, beside=[_with_keys(r, w) for r, w in more if r is not None])
    numbered = tuple(Token(k, f"#{k}") for k in range(length) if k not in taken)
    tokens = tuple(sorted(prompt.tokens + numbered, key=lambda t: t.key))
    # A key that is padding for one encoder may stand for a word of the other's prompt.
    used = {key for word in prompt.words for key in word.keys}
    tokens = tuple(replace(t, padding=t.padding and t.key not in used) for t in tokens)
    return replace(prompt, tokens=tokens)


def _with_keys(reading: Reading, where: dict[int, int]) -> tuple[Reading, list[int]]:
    """A reading with only the pieces that have a key, and those keys."""
    key_of = {p: k for k, p in where.items()}
    kept = [i for i in range(len(reading.pieces)) if i in key_of]
    number = {i: n for n, i in enumerate(kept)}
    words = tuple(
        replace(w, tokens=tuple(number[i] for i in w.tokens if i in number)) for w in reading.words
    )
    pieces = tuple(reading.pieces[i] for i in kept)
    return replace(reading, pieces=pieces, words=words), [key_of[i] for i in kept]

"""Everything that a person asks of one run, read from the trace in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scribblediffusion.analysis.balance import StreamBalance, weigh_streams
from scribblediffusion.analysis.concentration import Concentrations, measure_concentration
from scribblediffusion.analysis.correlation import StepCorrelation, correlate_steps
from scribblediffusion.analysis.listening import HeardSketch, ink_of, listen
from scribblediffusion.analysis.printing import Printed, Table, percent, quoted
from scribblediffusion.analysis.subjects import StepMaps, Subject, words_of
from scribblediffusion.attention.trace import AttentionTrace

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class RunSummary(Printed):
    """One run, measured.

    Attributes:
        trace: the run.
        maps: its raw maps at every step.
        words: its recorded words, in the order of the prompt.
        correlations: of each word between steps.
        balance: text against sketch.
        concentrations: of each word, and of the tokens that are none.
        heard: the sketch regions; None without sketch regions or without a drawing.
        ink: the drawing `[H, W]`, 0 to 1, or None.
    """

    trace: AttentionTrace
    maps: StepMaps
    words: tuple[Subject, ...]
    correlations: tuple[StepCorrelation, ...]
    balance: StreamBalance
    concentrations: Concentrations
    heard: HeardSketch | None
    ink: Array | None

    @property
    def drawing(self) -> Array | None:
        """The drawing as a picture, uint8 `[H, W]`, dark on light; None without one."""
        return None if self.ink is None else ((1 - self.ink) * 255).round().astype(np.uint8)

    @property
    def leading_word(self) -> Subject | None:
        """The word whose map is the most pointed: the highest peak in even shares.

        Of the words that did something, at every step if there are such; None where there is none.
        """
        measured = {e.subject.keys: e for e in self.concentrations.entries}
        best, most = None, (False, 0.0)
        for word in self.words:
            entry = measured[word.keys]
            if entry.shape is not None and not entry.did_nothing:
                rank = None not in entry.by_step, entry.shape.peak
                best, most = (word, rank) if rank > most else (best, most)
        return best

    @property
    def audit_line(self) -> str:
        """What proves the numbers, in one line."""
        if self.trace.audit is None:
            return "audit: none was made with this trace"
        return f"audit {self.trace.audit}"

    def table(self) -> Table:
        """One row for each word."""
        settled = {c.subject.keys: c.verdict for c in self.correlations}
        rows = []
        for word in self.words:
            entry = next(e for e in self.concentrations.entries if e.subject.keys == word.keys)
            peak = "" if entry.shape is None else f"{entry.shape.peak:.1f}x"
            note = "did nothing" if entry.did_nothing else settled[word.keys]
            rows.append((word.name, percent(entry.share), peak, note))
        streams = ", ".join(f"{k} {percent(v)}" for k, v in self.balance.mean.items())
        notes = [f"streams: {streams}", self.audit_line]
        if self.heard is not None:
            notes[1:1] = [str(r) for r in self.heard.leading(3)]
        return Table(quoted(self.trace.prompt), ("word", "share", "peak", ""), rows, notes)


def summarise(trace: AttentionTrace, ink: Array | None = None) -> RunSummary:
    """Measures one run.

    Args:
        trace: the run.
        ink: the drawing `[H, W]`, 0 (paper) to 1 (ink); the trace's own unless given.
    """
    maps = StepMaps.read(trace)
    words = words_of(trace)
    balance = weigh_streams(trace, maps=maps)
    if ink is None and trace.sketch is not None:
        ink = ink_of(trace)
    heard = None
    if ink is not None and balance.regions:
        heard = listen(trace, ink, maps=maps, shares=balance.regions)
    return RunSummary(
        trace=trace,
        maps=maps,
        words=words,
        correlations=tuple(correlate_steps(trace, word, maps=maps) for word in words),
        balance=balance,
        concentrations=measure_concentration(trace, maps=maps),
        heard=heard,
        ink=ink,
    )

"""The account of one run: what `scribble explain` says of it, as tables and as a JSON record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from scribblediffusion.analysis.concentration import Concentrations, measure_concentration
from scribblediffusion.analysis.correlation import correlate_steps
from scribblediffusion.analysis.printing import Table, noise_words, percent
from scribblediffusion.analysis.subjects import regions_of

if TYPE_CHECKING:
    from scribblediffusion.analysis.concentration import Concentration
    from scribblediffusion.analysis.listening import HeardRegion
    from scribblediffusion.analysis.subjects import Subject
    from scribblediffusion.analysis.summary import RunSummary
    from scribblediffusion.sketch import Region

#: So many sketch regions are told of.
LEADING = 5


def focused(summary: RunSummary, subject: Subject) -> RunSummary:
    """The same run, told of one word or region alone."""
    kept = [e for e in summary.concentrations.entries if e.subject.keys != subject.keys]
    (entry,) = measure_concentration(summary.trace, [subject], maps=summary.maps).entries
    return replace(
        summary,
        words=(subject,),
        correlations=(correlate_steps(summary.trace, subject, maps=summary.maps),),
        concentrations=Concentrations((*kept, entry)),
    )


def tables(summary: RunSummary, subject: Subject | None = None) -> Iterator[Table]:
    """What a person reads: the words, the sketch, their shares, the audit.

    Args:
        summary: the run; of one word or region alone, where `focused` made it.
        subject: that word or region.
    """
    trace = summary.trace
    yield Table(f"“{trace.prompt}”" if trace.prompt else "no prompt", (), (), [_made(summary)])
    if summary.words:
        yield _words(summary, subject)
    else:
        why = "no word of the prompt was recorded" if trace.prompt else "the prompt has no words"
        yield Table(why, (), ())
    if subject is not None:
        yield _by_step(summary, subject)
    if summary.heard is not None and subject is None:
        yield _regions(summary)
    yield _shares(summary)
    audit = summary.audit_line.removeprefix("audit ")
    yield Table("", (), (), [f"audit: {audit.removeprefix('audit: ')}", *_gaps(summary)])


def region_text(region: Region) -> str:
    """A region as the command line reads it: level:row,column."""
    return f"{region.level}:{region.row},{region.column}"


def _made(summary: RunSummary) -> str:
    trace = summary.trace
    parts = [f"seed {trace.settings['seed']}"] if "seed" in trace.settings else []
    parts.append(_count(len(summary.maps.steps), "step"))
    parts.append(_count(len(trace.layers), "attention layer"))
    if trace.picture_size is not None:
        parts.append(f"{trace.picture_size[1]}×{trace.picture_size[0]} pixels")
    if trace.batch > 1:
        parts.append(f"the first of {trace.batch} pictures")
    parts += [] if trace.branch == "full" else [f"branch {trace.branch}"]
    parts += [] if trace.complete else ["ended early"]
    return " · ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _words(summary: RunSummary, subject: Subject | None) -> Table:
    rows = []
    for word, correlation in zip(summary.words, summary.correlations, strict=True):
        entry = _entry(summary, word)
        shape = entry.shape
        peak = "" if shape is None else f"{shape.peak:.1f}x"
        centre = "" if shape is None else f"({shape.centre[0]:.2f}, {shape.centre[1]:.2f})"
        note = "did nothing" if entry.did_nothing else correlation.verdict
        rows.append((word.name, percent(entry.share), peak, centre, note))
    notes = ["peak: in even shares; centre: (x, y) from the upper left, 0 to 1"]
    header = ("word", "share", "peak", "centre", "its map")
    kind = "words" if subject is None else subject.kind
    return Table(kind, (kind.removesuffix("s"), *header[1:]), rows, notes)


def _entry(summary: RunSummary, subject: Subject) -> Concentration:
    return next(e for e in summary.concentrations.entries if e.subject.keys == subject.keys)


def _by_step(summary: RunSummary, subject: Subject) -> Table:
    """One row for each step."""
    entry, correlation = _entry(summary, subject), summary.correlations[0]
    shares = summary.maps.of(subject).mean(axis=(1, 2))
    rows = []
    for i, noise in enumerate(summary.maps.noise):
        shape, r = entry.by_step[i], correlation.with_last[i]
        peak = "" if shape is None else f"{shape.peak:.1f}x"
        centre = "" if shape is None else f"({shape.centre[0]:.2f}, {shape.centre[1]:.2f})"
        alike = "undefined" if r is None else f"{r:.2f}"
        rows.append((noise_words(noise), percent(float(shares[i])), peak, centre, alike))
    described = [str(h) for h in _all_heard(summary) if h.heard.subject.keys == subject.keys]
    header = ("noise remaining", "share", "peak", "centre", "r with last")
    return Table("step by step", header, rows, described)


def _all_heard(summary: RunSummary) -> tuple[HeardRegion, ...]:
    return () if summary.heard is None else summary.heard.regions


def _regions(summary: RunSummary) -> Table:
    heard = () if summary.heard is None else summary.heard.leading(LEADING)
    if not heard:
        return Table("sketch: nothing is drawn", (), ())
    rows = [(region_text(h.description.region), percent(h.share), str(h)) for h in heard]
    title = "sketch regions with ink, heard most first"
    return Table(title, ("region", "share", "what is drawn there"), rows)


def _shares(summary: RunSummary) -> Table:
    """The streams' shares: of the run, of its first and of its last step."""
    balance = summary.balance
    noise = balance.noise
    moments = ["whole run", *(f"at noise {noise_words(noise[i])}" for i in (0, -1))]
    rows = [
        (name, percent(mean), *(percent(balance.by_step[name][i]) for i in (0, -1)))
        for name, mean in balance.mean.items()
    ]
    special = [f"{s.subject.name} {percent(s.share)}" for s in balance.specials if s.share]
    notes = [f"of this, to tokens that are no words: {', '.join(special)}"] if special else []
    return Table("share of the attention", ("", *moments), rows, notes)


def _gaps(summary: RunSummary) -> list[str]:
    """What is not in the trace, and why."""
    lost = summary.trace.prompts[0].truncated if summary.trace.prompts else ()
    said = [f"cut off by the length limit, never read: {' '.join(lost)}"] if lost else []
    return said + [f"thinned: {sentence}" for sentence in summary.trace.thinned]


def record(summary: RunSummary) -> dict[str, Any]:
    """The account as plain values for JSON: numbers unrounded, shares 0…1 of all keys."""
    trace, balance, audit = summary.trace, summary.balance, summary.trace.audit
    return {
        "prompt": trace.prompt,
        "settings": dict(trace.settings),
        "versions": dict(trace.versions),
        "branch": trace.branch,
        "complete": trace.complete,
        "picture_size": trace.picture_size,
        "noise_remaining": summary.maps.noise,
        "streams": {
            name: {"share": mean, "by_step": balance.by_step[name]}
            for name, mean in balance.mean.items()
        },
        "words": [
            _word_record(summary, i) for i, word in enumerate(summary.words) if not word.region
        ],
        "regions": _region_records(summary),
        "not_words": [{"token": s.subject.name, "share": s.share} for s in balance.specials],
        "audit": None if audit is None else {"passed": audit.passed, "says": str(audit)},
        "left_out": _gaps(summary),
    }


def _word_record(summary: RunSummary, position: int) -> dict[str, Any]:
    word, correlation = summary.words[position], summary.correlations[position]
    entry = _entry(summary, word)
    settled = correlation.settled
    return {
        "word": word.name,
        "keys": word.keys,
        "share": entry.share,
        "did_nothing": entry.did_nothing,
        "shape": None if entry.shape is None else asdict(entry.shape),
        "r_with_last": correlation.with_last,
        "settled_at_noise": None if settled is None else correlation.noise[settled],
        "verdict": correlation.verdict,
    }


def _region_records(summary: RunSummary) -> list[dict[str, Any]]:
    """All regions, most heard first; the one alone where the account is of a region."""
    chosen = {w.keys for w in summary.words if w.region} or {
        s.keys for s in regions_of(summary.trace)
    }
    drawn = {h.heard.subject.keys: h for h in _all_heard(summary)}
    found = []
    for share in summary.balance.regions:
        region = share.subject.region
        if region is None or share.subject.keys not in chosen:
            continue
        heard = drawn.get(share.subject.keys)
        found.append(
            {
                "region": region_text(region),
                "keys": share.subject.keys,
                "share": share.share,
                "by_step": share.by_step,
                "heard_most_at_noise": summary.maps.noise[share.top_step],
                "where": None if heard is None else heard.description.where,
                "drawn": None if heard is None else heard.description.what,
                "ink": None if heard is None else heard.description.ink,
            }
        )
    return found

"""What `scribble evaluate maps` writes: tables, plots, one JSON, and measured parts of a page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from scribblediffusion.errors import SettingError
from scribblediffusion.evaluate.findings import (
    AIMS,
    EDITS,
    NAMES,
    WORDS,
    Evidence,
    edit_of,
    examples,
    had_effect,
    sentence,
    short_layer,
    typical,
)
from scribblediffusion.evaluate.intervals import Interval
from scribblediffusion.evaluate.page import filled
from scribblediffusion.evaluate.plots import plots
from scribblediffusion.view.figure import save_figure


def write(evidence: Evidence, page: Path | None = None) -> dict[str, str]:
    """Writes `maps.json`, `maps.md` and the plots beside the records.

    Args:
        evidence: what was measured.
        page: a Markdown page whose measured parts and pictures are brought up to date.

    Returns:
        The parts in Markdown, by name.

    Raises:
        SettingError: there is no such page.
    """
    if page is not None and not page.is_file():
        raise SettingError(f"{page}: there is no such page to bring up to date")
    parts = blocks(evidence)
    text = "\n".join(part for name, part in parts.items())
    (evidence.folder / "maps.md").write_text(text, encoding="utf-8")
    found = json.dumps(figures(evidence), indent=1) + "\n"
    (evidence.folder / "maps.json").write_text(found, encoding="utf-8")
    drawn = plots(evidence)
    for name, figure in drawn.items():
        save_figure(figure, evidence.folder / f"{name}.png")
    if page is not None:
        pictures = page.parent / "images" / "maps"
        for name, figure in drawn.items():
            save_figure(figure, pictures / f"{name}.png")
        page.write_text(filled(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    return parts


def figures(evidence: Evidence) -> dict[str, Any]:
    """Every figure with its interval, as plain JSON values."""
    choice = evidence.choice()
    return {
        "about": evidence.about | _scenes(evidence),
        "localisation": {
            view_: {k: _plain(evidence.located(k, view_)) for k in evidence.kinds}
            for view_ in evidence.views
            if not view_.startswith("choice ")
        },
        "choice": None if choice is None else _plain(choice),
        "causal": {
            f"{kind}, {edit}": {
                where: _plain(evidence.explained(kind, edit, where))
                for where in ("picture", "latents")
            }
            for kind, edit in EDITS
        },
        "effects": {
            f"{kind}, {edit}": _plain(_effects(evidence, kind, edit)) for kind, edit in EDITS
        },
        "over_time": {
            kind: {
                "removed from": _plain(evidence.over_time(kind, True)),
                "removed until": _plain(evidence.over_time(kind, False)),
                "attention": _plain(evidence.attention_over_time(kind)),
            }
            for kind in WORDS
        },
        "examples": _plain(examples(evidence)),
    }


def _scenes(evidence: Evidence) -> dict[str, int]:
    return {
        "localisation_scenes": len(evidence.localisation),
        "causal_scenes": len(evidence.effects),
        "time_scenes": len([r for r in evidence.moments if "moments" in r]),
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value


# --- tables --------------------------------------------------------------------------------------


def blocks(evidence: Evidence) -> dict[str, str]:
    """The parts of the report in Markdown, by name."""
    return {
        "about": _about(evidence),
        "localisation": _localisation(evidence),
        "noise": _noise(evidence),
        "layers": _layers(evidence),
        "choice": _choice(evidence),
        "causal": _causal(evidence),
        "typical": _typical(evidence),
        "time": _time(evidence),
        "ignored": _ignored(evidence),
    }


def _about(evidence: Evidence) -> str:
    about, many = evidence.about, _scenes(evidence)
    proved = sum(bool(record["audit"]) for record in evidence.localisation)
    return (
        f"Measured on {many['localisation_scenes']} held-out scenes of two and three objects "
        f"(causal experiments: {many['causal_scenes']}; over time: {many['time_scenes']}), "
        f"{about['steps']} steps, weights `{about['weights']}`, seed {about['seed']}. In brackets: "
        f"95 % intervals, bootstrap over scenes. The audit passed in {proved} of "
        f"{many['localisation_scenes']} runs. To repeat it:\n\n"
        f"    scribble evaluate maps --scenes {evidence.scenes} --output maps\n\n"
    )


def _localisation(evidence: Evidence) -> str:
    lines = [
        "| map of | measure | on its own object | aim | chance | on another object (chance there) "
        "| other tokens' maps on this object |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in evidence.kinds:
        found = evidence.located(kind)
        label = f"{NAMES.get(kind, kind)} ({found.own[0].count})"
        for i, measure in enumerate(("pointing game", "IoU, equal area", "AUC")):
            aim = f"≥ {AIMS[kind]:.2f}" if not i and kind in AIMS else ""
            wrong = "–"
            if found.wrong and found.wrong_chance:
                wrong = f"{found.wrong[i].number()} ({found.wrong_chance[i]:.2f})"
            shuffled = found.shuffled[i].number() if found.shuffled else "–"
            lines.append(
                f"| {label if not i else ''} | {measure} | **{found.own[i].number()}** | {aim} "
                f"| {found.chance[i]:.2f} | {wrong} | {shuffled} |"
            )
    return "\n".join(lines) + "\n"


def _noise(evidence: Evidence) -> str:
    steps = [v for v in evidence.views if v.startswith("step ")]
    lines = ["| noise remaining | nouns point | colour words point |", "| ---: | ---: | ---: |"]
    shown = sorted({0, len(steps) // 4, len(steps) // 2, 3 * len(steps) // 4, len(steps) - 1})
    for i in shown:
        cells = [_cell(evidence, kind, steps[i]) for kind in WORDS]
        lines.append(f"| {100 * evidence.noise[i]:.0f} % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(evidence: Evidence, kind: str, view_: str) -> str:
    return evidence.located(kind, view_).own[0].percent() if kind in evidence.kinds else "–"


def _layers(evidence: Evidence) -> str:
    names = [v for v in evidence.views if v.startswith("layer ")]
    rows = [(n.removeprefix("layer "), [_cell(evidence, k, n) for k in WORDS]) for n in names]
    lines = ["| layer | nouns point | colour words point |", "| --- | ---: | ---: |"]
    lines += [f"| `{short_layer(name)}` | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join(lines) + "\n"


def _choice(evidence: Evidence) -> str:
    choice = evidence.choice()
    if choice is None:
        return "Too few scenes to choose on one half and report on the other.\n"
    lines = [
        f"Chosen on {choice.scenes[0]} scenes by the IoU of nouns and colour words, reported on "
        f"the other {choice.scenes[1]}. Best of {len(choice.ranking)} candidates: "
        f"**{choice.name.replace(', ', '; ')}**.",
        "",
        "| map of | measure | all layers, all steps | chosen |",
        "| --- | --- | ---: | ---: |",
    ]
    for kind in choice.chosen:
        for i, measure in ((0, "pointing"), (1, "IoU")):
            now, best = choice.present[kind].own[i], choice.chosen[kind].own[i]
            label = NAMES.get(kind, kind)
            lines.append(f"| {label} | {measure} | {now.number()} | {best.number()} |")
    if choice.gain is not None:
        lines += ["", f"Gain in IoU of a word's map: {choice.gain.number()}."]
    return "\n".join(lines) + "\n"


def _effects(evidence: Evidence, kind: str, edit: str) -> dict[str, Interval | None]:
    return {
        "had an effect": evidence.of_edits(lambda e: float(had_effect(e)), kind, edit),
        "pixels": evidence.of_edits(lambda e: e["effect"], kind, edit),
        "inside its object": evidence.of_edits(
            lambda e: e.get("inside") if had_effect(e) else None, kind, edit
        ),
    }


def _causal(evidence: Evidence) -> str:
    lines = [
        "| edit | had an effect | explained by its map | chance | other words' maps | in the "
        "latents (chance) | of the change, inside its object |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, edit in EDITS:
        effects = _effects(evidence, kind, edit)
        if effects["had an effect"] is None:
            continue
        seen, deep = (evidence.explained(kind, edit, w) for w in ("picture", "latents"))
        cells = [
            _percent(effects["had an effect"]),
            f"**{_percent(seen['share'])}**",
            _percent(seen["chance"]),
            _percent(seen["control"]),
            f"{_percent(deep['share'])} ({_percent(deep['chance'], short=True)})",
            _percent(effects["inside its object"]),
        ]
        count = effects["had an effect"].count
        lines.append(f"| {NAMES[kind]} {edit} ({count}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(found: Interval | None, *, short: bool = False) -> str:
    if found is None:
        return "–"
    return f"{100 * found.value:.0f} %" if short else found.percent()


def _typical(evidence: Evidence) -> str:
    found = typical(evidence)
    if found is None:
        return "No removed word had an effect.\n"
    record, edit = edit_of(evidence, found)
    return (
        f"“{record['caption']}” without *{edit['subject']}*: {sentence(edit)}. "
        "This is the median case of all nouns and colour words that had an effect.\n"
    )


def _time(evidence: Evidence) -> str:
    lines = [
        "| noise remaining | noun removed from there on | noun removed until there "
        "| colour removed from there on | colour removed until there |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    columns = [dict(evidence.over_time(kind, after)) for kind in WORDS for after in (True, False)]
    for noise in sorted({n for column in columns for n in column}, reverse=True):
        cells = [_percent(column.get(noise)) for column in columns]
        lines.append(f"| {100 * noise:.0f} % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ignored(evidence: Evidence) -> str:
    lines = []
    for title, found in examples(evidence).items():
        lines += [f"**{title.capitalize()}**", ""]
        for case in found:
            record, edit = edit_of(evidence, case)
            rank = sorted(record["words"].values(), reverse=True)
            lines.append(
                f"- *{edit['subject']}* in “{record['caption']}”: "
                f"{100 * edit['attention']:.1f} % of all attention (the prompt's words have "
                f"{100 * rank[-1]:.1f}–{100 * rank[0]:.1f} %); without it "
                f"{100 * edit['effect']:.1f} % of the pixels changed noticeably."
            )
        lines.append("")
    return "\n".join(lines) + "\n"

"""What `scribble evaluate maps` found, as Markdown: one part a question."""

from __future__ import annotations

from collections.abc import Callable

from scribblediffusion.evaluate import choosing
from scribblediffusion.evaluate.choosing import DEFAULT, MARGIN, Choice
from scribblediffusion.evaluate.findings import (
    AIMS,
    EDITS,
    NAMES,
    NEAREST,
    PARTED,
    WORDS,
    Evidence,
    edit_of,
    examples,
    had_effect,
    nearest,
    sentence,
    short_layer,
    typical,
)
from scribblediffusion.evaluate.intervals import Interval
from scribblediffusion.evaluate.plots import file_of

#: Where a page has its pictures, beside it.
PICTURES_OF_PAGES = "images/maps"


def blocks(evidence: Evidence) -> dict[str, str]:
    """The parts of the report in Markdown, by name."""
    return {name: make(evidence) for name, make in BLOCKS.items()}


def _about(evidence: Evidence) -> str:
    about, many = evidence.about, evidence.counted
    options = "" if about["steps"] == 20 else f" --steps {about['steps']}"
    options += f" --model {about['model']}" if "model" in about else ""
    proved = sum(bool(record["audit"]) for record in evidence.localisation)
    return (
        f"Measured on {many['localisation_scenes']} held-out scenes of two and three objects "
        f"(causal experiments: {many['causal_scenes']}; over time: {many['time_scenes']}), "
        f"{about['steps']} steps, weights `{about['weights']}`, seed {about['seed']}. In brackets: "
        f"95 % intervals, bootstrap over scenes. The audit passed in {proved} of "
        f"{many['localisation_scenes']} runs. To repeat it:\n\n"
        f"    scribble evaluate maps --scenes {evidence.scenes}{options} --output maps "
        "--page docs/what-maps-can-tell.md\n\n"
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
    shown = sorted({0, len(steps) // 4, len(steps) // 2, 3 * len(steps) // 4, len(steps) - 1})
    rows = [(f"{100 * evidence.noise[i]:.0f} %", steps[i]) for i in shown]
    return _pointing(evidence, "noise remaining", "---:", rows)


def _layers(evidence: Evidence) -> str:
    names = [v for v in evidence.views if v.startswith("layer ")]
    rows = [(f"`{short_layer(n.removeprefix('layer '))}`", n) for n in names]
    return _pointing(evidence, "layer", "---", rows)


def _pointing(evidence: Evidence, first: str, align: str, rows: list[tuple[str, str]]) -> str:
    """Pointing of every kind under some views, with chance and other tokens' maps below."""
    kinds = evidence.kinds
    names = [NAMES.get(kind, kind) for kind in kinds]
    lines = [f"| {first} | {' | '.join(names)} |", f"| {align} |{' ---: |' * len(kinds)}"]
    for label, view_ in rows:
        cells = [evidence.located(kind, view_).own[0].percent() for kind in kinds]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    whole = [evidence.located(kind) for kind in kinds]
    chance = [f"{100 * found.chance[0]:.0f} %" for found in whole]
    control = [found.shuffled[0].percent() if found.shuffled else "–" for found in whole]
    lines.append(f"| *chance* | {' | '.join(chance)} |")
    lines.append(f"| *other tokens' maps there, whole run* | {' | '.join(control)} |")
    return "\n".join(lines) + "\n"


def _look(evidence: Evidence) -> str:
    look = choosing.look(evidence)
    if look is None:
        return "Too few scenes to choose on one half and report on the other.\n"
    layer, head = look.head
    return (
        "Chosen on one half of the scenes and reported on the other, for nouns and colour words "
        f"together: the best single noise level is {100 * look.noise:.0f} % remaining (they point "
        f"in {look.found['noise'].percent()}), the best layer `{short_layer(look.layer)}` "
        f"({look.found['layer'].percent()}), the best head number {head} of `{short_layer(layer)}` "
        f"({look.found['head'].percent()}).\n"
    )


def _choice(evidence: Evidence) -> str:
    chosen = choosing.choice(evidence)
    if chosen is None:
        return "Too few scenes to choose on one half and report on the other.\n"
    columns = {DEFAULT: "today's default: all layers, all steps"}
    columns[chosen.best] = f"best candidate: {_named(chosen.best)}"
    columns[chosen.sharpest] = f"sharpest for words: {_named(chosen.sharpest)}"
    shown = {name: title for name, title in columns.items() if name in chosen.reported}
    lines = [
        f"Chosen on {chosen.scenes[0]} scenes, reported on the other {chosen.scenes[1]}; "
        f"{len(chosen.ranking)} candidates for the default, {chosen.candidates} with single "
        "layers.",
        "",
        f"| map of | measure | {' | '.join(shown.values())} |",
        f"| --- | --- |{' ---: |' * len(shown)}",
    ]
    for kind in next(iter(chosen.reported.values())):
        for i, measure in ((0, "pointing"), (1, "IoU")):
            cells = [chosen.reported[name][kind].own[i].number() for name in shown]
            lines.append(f"| {NAMES.get(kind, kind)} | {measure} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _verdict(chosen)]) + "\n"


def _verdict(chosen: Choice) -> str:
    """What the rule says, and how to ask for the sharpest map."""
    layers, steps = chosen.sharpest.rsplit(", ", 1)
    scored = (
        f"The best candidate scores {chosen.margin:+.3f} against today's default on the choosing "
        f"half; the rule asks for more than {MARGIN}. So the default "
    )
    kept = chosen.default == DEFAULT
    made = "stays." if kept else f"is to become {_named(chosen.default)}."
    return (
        f"{scored}{made} The sharpest map of a word in this model is that of `{layers}`, {steps}."
    )


def _named(candidate: str) -> str:
    layers, steps = candidate.rsplit(", ", 1)
    return f"`{short_layer(layers)}`, {steps}" if "." in layers else candidate


def _alike(evidence: Evidence) -> str:
    lines = []
    for kind in ("noun", "colour", "ground", "other"):
        effects = evidence.consequences(kind, "knocked out")
        share, chance = effects["as removed"], effects["as removed, chance"]
        if share is not None and chance is not None:
            lines.append(
                f"- {NAMES[kind]}: where knocking out changed most lies {share.percent()} of what "
                f"removing changed (chance {100 * chance.value:.0f} %)."
            )
    return "\n".join(lines or ["No word that was knocked out had an effect."]) + "\n"


def _causal(evidence: Evidence) -> str:
    lines = []
    if any(had_effect(edit) for _, edit in evidence.edits()):
        lines += [
            f"![How much of the change lies where the map is high]({PICTURES_OF_PAGES}/causal.png)",
            "",
        ]
    lines += [
        "| edit | had an effect | explained by its map | chance | other maps of its kind "
        "| in the latents (chance) | of the change, inside its object (its size) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, edit in EDITS:
        effects = evidence.consequences(kind, edit)
        if effects["had an effect"] is None:
            continue
        seen, deep = (evidence.explained(kind, edit, w) for w in ("picture", "latents"))
        cells = [
            _percent(effects["had an effect"]),
            f"**{_percent(seen['share'])}**",
            _percent(seen["chance"]),
            _percent(seen["control"]),
            f"{_percent(deep['share'])} ({_percent(deep['chance'], short=True)})",
            _percent(effects["inside its object"])
            + (
                f" ({_percent(size, short=True)})"
                if (size := effects["size of its object"])
                else ""
            ),
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
        "![The picture, the picture without the word, what changed, and the word's map]"
        f"({PICTURES_OF_PAGES}/typical.png)\n\n"
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
        if not found and title == PARTED[0]:
            found, title = nearest(evidence), NEAREST
            lines += [
                "No word that was removed had more attention than the median and changed fewer "
                "than one pixel in 200 noticeably. The nearest:",
                "",
            ]
        elif not found:
            lines += ["No word with less attention than the median had an effect.", ""]
        lines += [_told(evidence, case) for case in found]
        if found:
            lines += ["", f"![{title.capitalize()}]({PICTURES_OF_PAGES}/{file_of(title)}.png)"]
        lines.append("")
    return "\n".join(lines) + "\n"


def _told(evidence: Evidence, case: tuple[int, int]) -> str:
    """A removed word: its attention among the prompt's words, its effect, and knocked out."""
    record, edit = edit_of(evidence, case)
    rank = sorted(share for _, share in record["words"])
    knocked = next(
        (
            e
            for e in record["edits"]
            if e["edit"] == "knocked out"
            and (e["subject"], e["attention"]) == (edit["subject"], edit["attention"])
        ),
        None,
    )
    inside = (
        ""
        if knocked is None
        else f" Knocked out inside the run, {100 * knocked['effect']:.1f} % of them did."
    )
    return (
        f"- *{edit['subject']}* in “{record['caption']}”: {100 * edit['attention']:.1f} % of all "
        f"attention for each of its tokens (the prompt's words have {100 * rank[0]:.1f}–"
        f"{100 * rank[-1]:.1f} %); without it {100 * edit['effect']:.1f} % of the pixels changed "
        f"noticeably.{inside}"
    )


#: The parts of the report by name, in their order.
BLOCKS: dict[str, Callable[[Evidence], str]] = {
    "about": _about,
    "localisation": _localisation,
    "noise": _noise,
    "layers": _layers,
    "look": _look,
    "choice": _choice,
    "causal": _causal,
    "alike": _alike,
    "typical": _typical,
    "time": _time,
    "ignored": _ignored,
}

"""What the status line says of a run."""

from __future__ import annotations

from typing import Any

from scribblediffusion.web.limits import Order
from scribblediffusion.web.painter import Painted
from scribblediffusion.web.worker import Failed, News, Running, Waiting


def said(kind: str, text: str, **more: Any) -> dict[str, Any]:
    """The value of the status line."""
    return {"kind": kind, "text": text, "noise": None, "step": 0, "count": 0, **more}


def sentence_of(news: News, order: Order) -> dict[str, Any]:
    """News of a job as the status line shows it."""
    if isinstance(news, Waiting):
        others = "1 picture is" if news.ahead == 1 else f"{news.ahead} pictures are"
        return said("waiting", f"{others} before yours." if news.ahead else "You are next.")
    if isinstance(news, Running):
        if news.noise is None:
            return said("running", "Getting ready", noise=1.0)
        text = f"Noise remaining: {news.noise:.0%}"
        return said("running", text, noise=news.noise, step=news.step, count=news.count)
    if isinstance(news, Failed):
        return said("error", news.message)
    return ended(news.result)


def ended(painted: Painted) -> dict[str, Any]:
    """A run that has ended, as the status line shows it."""
    trace, order = painted.trace, painted.order
    steps = len({s.index for s in trace.steps})
    without = order.note.get("without")
    if trace.complete:
        what = f"Drawn again without {without}" if without else "Done"
        return said("done", f"{what}. Seed {order.seed}.", noise=0.0, step=steps, count=steps)
    noise = trace.steps[-1].noise_remaining
    if without and steps == order.stop_after:
        where = f"to step {steps} of {order.steps}, where the run before was stopped"
        text = f"Drawn again without {without}, {where}. Seed {order.seed}."
        return said("stopped", text, noise=noise, step=steps, count=order.steps)
    left = "" if noise is None else f", with {noise:.0%} of the noise remaining"
    text = f"Stopped after step {steps} of {order.steps}{left}. The picture is what was seen then."
    return said("stopped", text, noise=noise, step=steps, count=order.steps)

"""`KnockOut`: a run in which chosen tokens have weight 0, in chosen layers and at chosen steps.

    with KnockOut(pipe, "red", steps=slice(10, None)):
        image = pipe("a red apple", generator=…).images[0]

This changes the picture: it is an experiment, kept apart from the extractor, which only looks.
A pre-hook on each attention module adds −∞ to the logits of the tokens through the module's own
argument `attention_mask`, so that the model's own softmax gives them exactly 0 and shares their
weight among the remaining keys: ``softmax`` over the rest. No class is patched and no `forward` is
replaced; on the way out every hook is gone, also after an error. Only processors that are known to
add their mask to the logits are accepted (`HEEDING`); SD3's takes a mask and drops it, and is
refused by name.

Both may be open at once: the extractor then records the weights of the changed run, in any order
of the two contexts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from numbers import Integral
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from scribblediffusion.attention import naming, schedule
from scribblediffusion.attention.attaching import Attaching
from scribblediffusion.attention.branches import rows_of_condition, rows_of_layout
from scribblediffusion.attention.encoders import EncoderWatch
from scribblediffusion.attention.families import Site, denoiser_of, find_sites
from scribblediffusion.attention.frames import Wish, wanted_steps
from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.attention.records import Prompt, Region, Word
from scribblediffusion.attention.sight import at_work, calls_said
from scribblediffusion.errors import (
    CaptureError,
    SettingError,
    TraceError,
    UnknownFamilyError,
    UnknownWordError,
)

#: Processors, by class name, whose code adds `attention_mask` to the logits before the softmax.
HEEDING = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "FusedAttnProcessor2_0",
    "SlicedAttnProcessor",
    "IPAdapterAttnProcessor",
    "IPAdapterAttnProcessor2_0",
    "SanaAttnProcessor2_0",
    "FluxAttnProcessor",
    "CroppedAttnProcessor2_0",  # the shipped model's
)
#: A bias at or below this leaves a key no weight: diffusers masks with −10000.
_NONE_LEFT = -9999.0

#: Arguments of an attention module, in their order.
_ARGUMENTS = ("hidden_states", "encoder_hidden_states", "attention_mask", "image_rotary_emb")

#: What can be knocked out: a word or phrase (each time it occurs), one of a prompt's `Word`s, a
#: key, or a sketch region.
Target = str | Word | int | Region


class KnockOut(Attaching):
    """Chosen tokens have no weight while this context is open; see the module's docstring.

    Words are taken out of the rows of the prompt alone. Sketch regions are taken out of every row
    that has the sketch, so that guidance does not bring them back. In joint layers (FLUX) no query
    sees the token, be it of the picture or of the text.

    Args:
        target: A diffusers pipeline, or a UNet or transformer alone (keys only, the whole batch).
        *what: What to knock out in every picture of a batch.
        each: Instead of `what`: for each picture of the batch what to knock out, maybe nothing.
        layers: Glob or globs over module paths.
        steps: Which steps (`Step.index`; negative from the end where the schedule is known): one,
            several, or a slice of them; None for all.
        scheduler: The scheduler of a bare denoiser, for step numbers.

    Attributes:
        applied: How often a layer ran with the tokens knocked out.

    Raises:
        UnknownFamilyError: The denoiser, or the processor of one of its layers, does not let us.
        SettingError: Nothing to knock out was named.
        UnknownWordError, TraceError: While running: no picture has that word, region or key.
        CaptureError: On the way out: the model ran and none of it was reached.
    """

    def __init__(
        self,
        target: Any,
        *what: Target,
        each: Sequence[Iterable[Target]] | None = None,
        layers: str | Sequence[str] = "*",
        steps: int | Iterable[int] | slice | None = None,
        scheduler: Any = None,
    ) -> None:
        if bool(what) == (each is not None):
            raise SettingError("what to knock out: name tokens, or give `each` picture its own")
        self._each = None if each is None else tuple(map(_several, each))
        self._what = _several(what)
        self._denoiser = denoiser_of(target)
        self._pipe = None if isinstance(target, nn.Module) else target
        self._sites = find_sites(self._denoiser, layers)
        for site in self._sites:
            _refuse_deaf(site)
        self._wish = Wish(False, False, wanted_steps(steps))
        self._names = list(inspect.signature(self._denoiser.forward).parameters)
        self._scheduler = scheduler
        self._watch: EncoderWatch | None = None
        self._clock = schedule.Clock(None)
        self._out: Tensor | None = None
        self._known: tuple[Tensor, Tensor] | None = None
        self._calls = 0
        self.applied = 0

    # ── the context ──────────────────────────────────────────────────────────────────────────

    _open = "this knock-out is open already; leave its context first"

    def _attach(self, stack: ExitStack) -> None:
        self._clock = schedule.Clock(self._running(), self._pipe)
        self._calls = self.applied = 0
        hook = self._denoiser.register_forward_pre_hook(self._begins, with_kwargs=True)
        stack.callback(hook.remove)
        for site in self._sites:
            # First of all: an extractor must see the mask as the module will.
            hook = site.module.register_forward_pre_hook(
                self._silence(site), prepend=True, with_kwargs=True
            )
            stack.callback(hook.remove)
        if self._pipe is not None and self._layout() is None:
            self._watch = EncoderWatch(self._pipe)
            self._watch.attach(stack)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()
        self._out = self._known = self._watch = None
        if kind is None and self._calls and not self.applied:
            raise CaptureError(
                f"the denoiser ran {self._calls} times and nothing was knocked out: no row of its "
                "batch was meant, or no step was; look at `steps`"
            )

    # ── a denoiser call ──────────────────────────────────────────────────────────────────────

    def _begins(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before each denoiser call: whether this step is meant, and which rows and keys."""
        given = dict(zip(self._names, args, strict=False)) | kwargs
        condition = given.get("encoder_hidden_states")
        if isinstance(condition, (tuple, list)):
            condition = condition[0]
        if not isinstance(condition, Tensor):
            raise CaptureError("the denoiser was called without encoder_hidden_states")
        self._calls += 1
        if self._watch is not None:
            self._watch.run_begins()
        self._out = self._chosen(condition) if self._is_meant(given.get("timestep")) else None

    def _is_meant(self, timestep: Any) -> bool:
        """Whether the call that begins is of a step that was asked for."""
        given, count = schedule.number(timestep), calls_said(self._pipe)
        if not self._clock.goes_on(self._running(), given):
            self._clock = schedule.Clock(self._running(), self._pipe)
        self._clock.tick(given, count)
        planned = self._clock.planned(count)
        return self._wish.wants(self._clock.index, None if planned is None else planned[-1] + 1)

    def _running(self) -> Any:
        """The scheduler as it is now."""
        return self._scheduler or getattr(at_work(self._pipe) or self._pipe, "scheduler", None)

    def _chosen(self, condition: Tensor) -> Tensor:
        """Which keys of which rows, ``[B, K]`` bool; found once for each condition tensor."""
        if self._known is None or self._known[0] is not condition:
            self._known = condition, self._find(condition)
        return self._known[1]

    def _find(self, condition: Tensor) -> Tensor:
        batch, keys = condition.shape[:2]
        out = torch.zeros(batch, keys, dtype=torch.bool, device="cpu")
        layout = self._layout()
        if layout is None:
            rows = rows_of_condition(self._pipe, self._watch, condition, "full")
            regions: Any = {}
            parts = [(rows.numbers, rows.prompts)]
        else:
            regions = layout.regions
            full = rows_of_layout(layout, batch, "full")
            parts = [(full.numbers, full.prompts)]
            if sketched := rows_of_layout(layout, batch, "sketch_only").numbers:
                parts.append((sketched, full.prompts))
        if not parts[0][0]:  # a call without the prompt: guidance one branch at a time
            return out.to(condition.device)
        wanted = self._keys(parts[0][1], regions, keys)
        sketch = layout.streams.get("sketch", range(0)) if layout is not None else range(0)
        for number, (rows_, _) in enumerate(parts):
            for row, chosen in zip(rows_, wanted, strict=True):
                out[row, [k for k in chosen if number == 0 or k in sketch]] = True
        return out.to(condition.device)

    def _keys(
        self, prompts: Sequence[Prompt], regions: dict[Region, int], keys: int
    ) -> list[set[int]]:
        """For each picture the keys that are knocked out."""
        each = self._each if self._each is not None else (self._what,) * len(prompts)
        if len(each) != len(prompts):
            raise SettingError(f"`each` names {len(each)} pictures, the batch has {len(prompts)}")
        asked = [t for one in each for t in one]
        found = [
            {t: _keys_of(t, prompt, regions, keys) for t in one}
            for one, prompt in zip(each, prompts, strict=True)
        ]
        for target in asked:
            if not any(one.get(target) for one in found):
                raise _unknown(target, prompts, regions, keys)
        return [{k for chosen in one.values() for k in chosen} for one in found]

    def _layout(self) -> KeyLayout | None:
        give = getattr(self._pipe, "key_layout", None)
        if not callable(give):
            return None
        try:
            layout = give()
        except SettingError:  # ours has none before its first run: it will have one
            return KeyLayout({"text": range(0)}, {"full": ()})
        return layout if isinstance(layout, KeyLayout) else None

    # ── an attention layer ───────────────────────────────────────────────────────────────────

    def _silence(self, site: Site) -> Any:
        """A pre-hook that takes the chosen keys out of the layer's softmax."""

        def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
            out = self._out
            if out is None or not out.any():
                return None
            given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
            given["attention_mask"] = _masked(site, given, out)
            self.applied += 1
            return (), given

        return hook


def _refuse_deaf(site: Site) -> None:
    """Only a processor that is known to heed its mask can be made to leave a token out."""
    name = type(getattr(site.module, "processor", None)).__name__
    if name not in HEEDING:
        raise UnknownFamilyError(
            f"tokens cannot be knocked out of {site.name}: its processor {name} is not known to "
            f"add a mask to its logits; known are {', '.join(HEEDING)}. Choose other `layers`, or "
            "set one of these processors"
        )


def _masked(site: Site, given: dict[str, Any], out: Tensor) -> Tensor:
    """The layer's mask with −∞ at the chosen keys.

    Returns:
        ``[B, 1, K]`` as diffusers' cross-attention takes it, ``[B, 1, 1, K]`` in joint layers.
    """
    hidden, mask = given["hidden_states"], given.get("attention_mask")
    batch, dtype = hidden.shape[0], hidden.dtype
    length = _length(site, given)
    if out.shape[0] != batch or out.shape[1] > length:
        raise CaptureError(
            f"{site.name}: {batch} rows and {length} keys, where the denoiser was given "
            f"{tuple(out.shape)}"
        )
    bias = torch.zeros(batch, length, dtype=dtype, device=hidden.device)
    bias[:, : out.shape[1]].masked_fill_(out.to(hidden.device), -torch.inf)
    bias = bias[:, None] if site.join == "cross" else bias[:, None, None]
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -torch.inf)
        mask = mask[:, None] if mask.ndim == 2 and site.join == "cross" else mask
        if mask.ndim != bias.ndim or mask.shape[-1] != length or mask.shape[0] not in (1, batch):
            raise CaptureError(
                f"{site.name}: its mask has the shape {tuple(mask.shape)}, which cannot be joined "
                f"with one of {tuple(bias.shape)}"
            )
        bias = bias + mask.to(dtype)
    if not bool((bias > _NONE_LEFT).any(-1).all()):
        raise SettingError(
            f"{site.name}: with these tokens knocked out a row has no key left to attend to"
        )
    return bias


def _several(targets: Any) -> tuple[Target, ...]:
    """What one picture has knocked out, of one target or several; NumPy's numbers as ints."""
    one = isinstance(targets, str | Word | Region | Integral)
    each = (targets,) if one else tuple(targets)
    return tuple(int(t) if isinstance(t, Integral) else t for t in each)


def _length(site: Site, given: dict[str, Any]) -> int:
    """How many keys the layer's softmax has."""
    condition = given.get("encoder_hidden_states")
    if isinstance(condition, (tuple, list)):  # an IP-Adapter's images come beside the text
        condition = condition[0]
    own = given["hidden_states"].shape[1]
    if site.join == "cross":
        if condition is None:
            raise CaptureError(f"{site.name}: it was called without a condition")
        return int(condition.shape[1])
    return int(own + (0 if condition is None else condition.shape[1]))


def _keys_of(target: Target, prompt: Prompt, regions: dict[Region, int], keys: int) -> set[int]:
    """The keys that a person means in one picture; none where it has none."""
    if isinstance(target, Word):
        return set(target.keys) if target in prompt.words else set()
    if isinstance(target, Region):
        return {regions[target]} if target in regions else set()
    if isinstance(target, int):
        return {target} if 0 <= target < keys else set()
    try:
        return {k for found in naming.find(target, prompt) for k in found}
    except UnknownWordError:
        return set()


def _unknown(
    target: Target, prompts: Sequence[Prompt], regions: dict[Region, int], keys: int
) -> TraceError:
    if isinstance(target, str):
        try:
            naming.find(target, prompts[0])
        except UnknownWordError as error:
            return error
    there = f"keys 0–{keys - 1}" + (f" and {len(regions)} sketch regions" if regions else "")
    return TraceError(f"{target!r} cannot be knocked out: this run has {there}, and its words")

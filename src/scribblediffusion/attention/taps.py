"""What one attention module really computed with: its queries, keys, values, mask and output.

Forward hooks on the projections and norms note what went by; a pre-hook with keyword arguments on
the module itself notes mask and rotary embedding. Nothing is changed and nothing is computed here.
Whichever of the projections was used is the one whose hook fired: separate or fused, with or
without norm, an IP-Adapter's too. So no processor has to be known by name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scribblediffusion.attention.families import Site
from scribblediffusion.attention.guard import SURVIVABLE
from scribblediffusion.errors import CaptureError

#: Projections and norms of an attention module, and what each one's output is.
_PROJECTIONS = {
    "to_q": ("q",),
    "to_k": ("k",),
    "to_v": ("v",),
    "to_kv": ("k", "v"),
    "to_qkv": ("q", "k", "v"),
    "add_q_proj": ("text_q",),
    "add_k_proj": ("text_k",),
    "add_v_proj": ("text_v",),
    "to_added_qkv": ("text_q", "text_k", "text_v"),
    "norm_q": ("q",),
    "norm_k": ("k",),
    "norm_added_q": ("text_q",),
    "norm_added_k": ("text_k",),
}
#: A processor's own projections, where it brings some.
_OF_PROCESSOR = {
    "to_q_custom_diffusion": ("q",),
    "to_k_custom_diffusion": ("k",),
    "to_v_custom_diffusion": ("v",),
    # SD3's IP-Adapter norms the picture's queries and keys once more, by itself.
    "norm_q": ("adapter_q",),
    "norm_k": ("adapter_image_k",),
    "norm_ip_k": ("adapter_k",),
}


@dataclass
class Adapter:
    """Keys and values that an IP-Adapter projected in one call, one entry for each image."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass
class Sighting:
    """One forward call of an attention module, as it went by.

    Attributes:
        parts: ``q``, ``k``, ``v`` and their ``text_`` and ``adapter_`` kin, as ``[B, S, H·D]`` or,
            from a norm over heads, with four dimensions.
        hidden: The input that queries are made from.
        arguments: All arguments of the call by name.
        adapters: Of each IP-Adapter in the order of its projections.
        text_length: Of a FLUX single-stream block: how much of the sequence is text.
    """

    hidden: Tensor
    arguments: dict[str, Any]
    text_length: int | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)
    adapters: dict[int, Adapter] = field(default_factory=dict)


@dataclass(frozen=True)
class Attended:
    """A sighting put together: everything that the softmax of one layer was made of.

    Attributes:
        q: ``[B, H, S, D]``, image places alone, rotary embedding applied.
        k: ``[B, H, K, D]``, in the order of the model.
        v: ``[B, H, K, D]``; None where they were not wanted.
        scale: Factor on q·k.
        mask: As the module received it, or None.
        text: Where the condition's keys stand among the K.
        image: Where the picture's own keys stand; empty in plain cross-attention.
        plain_q: The queries before any rotary embedding: an IP-Adapter uses these.
    """

    q: Tensor
    k: Tensor
    v: Tensor | None
    scale: float
    mask: Tensor | None
    text: range
    image: range
    plain_q: Tensor


class Tap:
    """Hooks on one site.

    Args:
        site: The layer.
        seen: Called with the site, the sighting and the output after each forward of it.
        missed: Called with the site and the error where a hook could not read what went by.
    """

    def __init__(
        self,
        site: Site,
        seen: Callable[[Site, Sighting, Any], None],
        missed: Callable[[Site, BaseException], None],
    ) -> None:
        self.site = site
        self._seen, self._missed = seen, missed
        self._now: Sighting | None = None
        self._text_length: int | None = None

    def attach(self, stack: ExitStack) -> None:
        """Register every hook; the stack removes them."""
        module: Any = self.site.module
        for names, owner in ((_PROJECTIONS, module), (_OF_PROCESSOR, _processor(module))):
            for name, parts in names.items():
                part = getattr(owner, name, None)
                if isinstance(part, nn.Module):
                    self._hook(stack, part, self._note(parts))
        for kind, note in (("to_k_ip", self._note_key), ("to_v_ip", self._note_value)):
            for number, part in enumerate(_list(getattr(_processor(module), kind, None))):
                self._hook(stack, part, note(number))
        if self.site.single is not None:
            self._hook_before(stack, self.site.single, self._block_begins)
        self._hook_before(stack, module, self._begins)
        self._hook(stack, module, self._ends)
        stack.callback(self.forget)

    def _hook(self, stack: ExitStack, module: nn.Module, hook: Callable[..., None]) -> None:
        stack.callback(module.register_forward_hook(self._guarded(hook)).remove)

    def _hook_before(self, stack: ExitStack, module: nn.Module, hook: Callable[..., None]) -> None:
        before = module.register_forward_pre_hook(self._guarded(hook), with_kwargs=True)
        stack.callback(before.remove)

    def _guarded(self, hook: Callable[..., None]) -> Callable[..., None]:
        """A hook that tells of an error instead of stopping the model."""

        def guarded(*given: Any) -> None:
            try:
                hook(*given)
            except SURVIVABLE as error:
                self._now = None
                self._missed(self.site, error)

        return guarded

    def forget(self) -> None:
        """Let go of tensors of a call that never ended."""
        self._now = None

    def _block_begins(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
        self._text_length = None if text is None else int(text.shape[1])

    def _begins(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        names = ("hidden_states", "encoder_hidden_states", "attention_mask", "image_rotary_emb")
        arguments = dict(zip(names, args, strict=False)) | kwargs
        self._now = Sighting(arguments["hidden_states"], arguments, self._text_length)

    def _ends(self, _: nn.Module, args: tuple, output: Any) -> None:
        sighting, self._now = self._now, None
        if sighting is not None:
            self._seen(self.site, sighting, output)

    def _note(self, parts: tuple[str, ...]) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple, output: Tensor) -> None:
            if self._now is not None:
                pieces = output.chunk(len(parts), dim=-1) if len(parts) > 1 else (output,)
                self._now.parts.update(zip(parts, pieces, strict=True))

        return note

    def _note_key(self, number: int) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple, output: Tensor) -> None:
            if self._now is not None:
                self._now.adapters.setdefault(number, Adapter()).keys.append(output)

        return note

    def _note_value(self, number: int) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple, output: Tensor) -> None:
            if self._now is not None:
                self._now.adapters.setdefault(number, Adapter()).values.append(output)

        return note


def put_together(site: Site, seen: Sighting, *, values: bool = True) -> Attended:
    """The queries, keys and values of the softmax from what was seen.

    Args:
        site: The layer.
        seen: What went by.
        values: Whether the values are wanted; if not, joining them is saved.

    Raises:
        CaptureError: A projection was not used, or a shape is not what the family has.
    """
    missing = [name for name in ("q", "k", "v") if name not in seen.parts]
    if missing:
        raise CaptureError(
            f"{site.name}: its processor {type(_processor(site.module)).__name__} did not use "
            f"{', '.join('to_' + m for m in missing)}"
        )
    q, k, v = (by_head(site, seen.parts[name]) for name in ("q", "k", "v"))
    if site.join != "cross":
        return _joint(site, seen, q, k, v if values else None)
    if seen.arguments.get("encoder_hidden_states") is None:
        raise CaptureError(f"{site.name}: it was called without a condition")
    mask = seen.arguments.get("attention_mask")
    size = k.shape[2]
    return Attended(q, k, v, scale_of(site, q), mask, range(size), range(size, size), q)


def _joint(site: Site, seen: Sighting, q: Tensor, k: Tensor, v: Tensor | None) -> Attended:
    plain = q
    if "text_k" in seen.parts:
        text = {n: by_head(site, t) for n, t in seen.parts.items() if n.startswith("text_")}
        q, k = _joined(site, text["text_q"], q), _joined(site, text["text_k"], k)
        v = None if v is None else _joined(site, text["text_v"], v)
        length = text["text_k"].shape[2]
    elif site.single is not None and seen.text_length is not None:
        length = seen.text_length
        plain = q[:, :, length:]
    else:
        raise CaptureError(f"{site.name}: it was called without a condition")
    rotary = seen.arguments.get("image_rotary_emb")
    if rotary is not None:
        q, k = rotated(q, rotary), rotated(k, rotary)
    size = k.shape[2]
    at, image = (
        (range(size - length, size), range(size - length))
        if site.join == "image_text"
        else (range(length), range(length, size))
    )
    # SD3's processors take a mask and do not use it; FLUX's do.
    mask = seen.arguments.get("attention_mask") if site.join == "text_image" else None
    own = q[:, :, image.start : image.stop]
    return Attended(own, k, v, scale_of(site, q), mask, at, image, plain)


def scale_of(site: Site, q: Tensor) -> float:
    """The factor on q·k: the fused kernel's 1/√D, or the module's own where that is used."""
    usual = q.shape[-1] ** -0.5
    name = type(_processor(site.module)).__name__
    if name.endswith("2_0") or site.join != "cross":
        return usual
    return float(getattr(site.module, "scale", usual))


def rotated(x: Tensor, rotary: Any) -> Tensor:
    """The model's own rotary embedding on ``[B, H, S, D]``."""
    from diffusers.models.embeddings import apply_rotary_emb

    turned = apply_rotary_emb(x.transpose(1, 2), rotary, sequence_dim=1)
    return turned.transpose(1, 2)  # type: ignore[union-attr]


def _joined(site: Site, text: Tensor, image: Tensor) -> Tensor:
    pair = (image, text) if site.join == "image_text" else (text, image)
    return torch.cat(pair, dim=2)


def by_head(site: Site, x: Tensor) -> Tensor:
    """``[B, S, H·D]``, ``[B, S, H, D]`` or ``[B, H, S, D]`` → ``[B, H, S, D]``."""
    heads = site.heads
    if x.ndim == 3:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    # FLUX's processors norm [B, S, H, D] and SD3's [B, H, S, D]; only S = H leaves a doubt.
    heads_last = site.join == "text_image" if x.shape[1] == x.shape[2] else x.shape[2] == heads
    return x.transpose(1, 2) if heads_last else x


def _processor(module: Any) -> Any:
    return getattr(module, "processor", None)


def _list(modules: Any) -> list[nn.Module]:
    """One projection for each IP-Adapter; SD3 has room for one."""
    if isinstance(modules, nn.ModuleList):
        return list(modules)
    return [modules] if isinstance(modules, nn.Module) else []

"""Which attention modules of a denoiser look at the condition, and on what grid of places.

Known families, by the classes of their blocks:

- `BasicTransformerBlock` (Stable Diffusion 1.x, 2.x, XL and their ControlNet, T2I-Adapter,
  IP-Adapter, image-to-image and inpainting variants; PixArt): `attn2`, and `attn1` where the block
  only cross-attends. A block whose `attn2` has no condition (double self-attention) has none.
- `SanaTransformerBlock`: `attn2`. Its linear `attn1` is among image places.
- `JointTransformerBlock` (SD3, SD3.5): `attn`, over image then text. `attn2` is image alone.
- `FluxTransformerBlock`, `FluxSingleTransformerBlock`: `attn`, over text then image.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from scribblediffusion.errors import CaptureError, SettingError, UnknownFamilyError

#: Denoisers that can be read, by class name (subclasses too).
DENOISERS = {
    "UNet2DConditionModel": "Stable Diffusion 1.x, 2.x, XL",
    "PixArtTransformer2DModel": "PixArt",
    "Transformer2DModel": "PixArt-α in its first form",
    "SanaTransformer2DModel": "Sana",
    "SD3Transformer2DModel": "Stable Diffusion 3, 3.5",
    "FluxTransformer2DModel": "FLUX.1",
}

#: Parts of a denoiser that make a condition and are not the denoiser: reference pictures'.
_BESIDE = ("encoder_hid_proj", "image_proj", "add_embedding")

#: How the keys are joined: the condition alone, image then text, or text then image.
Join = Literal["cross", "image_text", "text_image"]


@dataclass(frozen=True)
class Site:
    """One attention module to observe.

    Attributes:
        name: Its path in the denoiser.
        module: The attention module.
        join: What its keys are made of, in order.
        single: The FLUX single-stream block around it: text and image come in one sequence, and
            only the block's own input tells how long the text is. None elsewhere.
    """

    name: str
    module: nn.Module
    join: Join
    single: nn.Module | None = None

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return int(self.module.heads)  # type: ignore[arg-type]


def denoiser_of(target: Any) -> nn.Module:
    """The denoiser of a pipeline (`unet` or `transformer`), or the target if it is one.

    Raises:
        UnknownFamilyError: There is none, or not one that can be read.
    """
    found = target if isinstance(target, nn.Module) else None
    for name in ("unet", "transformer"):
        found = found if found is not None else getattr(target, name, None)
    classes = [cls.__name__ for cls in type(found).__mro__]
    if not isinstance(found, nn.Module) or not set(classes) & set(DENOISERS):
        what = f"a {type(target).__name__}" + (
            "" if found is target or found is None else f" with a {classes[0]}"
        )
        if "OptimizedModule" in classes:
            raise UnknownFamilyError(
                f"attention of {what} cannot be read: a compiled model hides its layers; capture "
                f"with the model that was compiled (its `_orig_mod`)"
            )
        raise UnknownFamilyError(
            f"attention of {what} cannot be read; give a pipeline, UNet or transformer of: "
            + ", ".join(f"{cls} ({models})" for cls, models in DENOISERS.items())
        )
    return found


def find_sites(denoiser: nn.Module, layers: str | Sequence[str] = "*") -> list[Site]:
    """Every attention module whose keys include the condition, in the order of the model.

    Args:
        denoiser: A denoiser that `denoiser_of` let through.
        layers: Glob or globs over the module paths.

    Raises:
        SettingError: What is given is no glob and no globs.
        UnknownFamilyError: No block of it is known, or only some of those that cross-attend: a
            record with holes that nobody sees would mislead.
        CaptureError: The globs leave nothing over.
    """
    globs = [layers] if isinstance(layers, str) else layers
    if not isinstance(globs, Sequence) or not globs or not all(isinstance(g, str) for g in globs):
        raise SettingError(
            f"layers={layers!r}: give a glob over module paths or several; '*' means all"
        )
    sites = [site for path, block in denoiser.named_modules() for site in _sites_of(path, block)]
    _refuse_unknown(denoiser, {id(site.module) for site in sites})
    chosen = [s for s in sites if any(fnmatch.fnmatchcase(s.name, g) for g in globs)]
    if not chosen:
        raise CaptureError(
            f"layers={layers!r} fits none of the {len(sites)} layers: "
            f"{', '.join(s.name for s in sites)}"
        )
    return chosen


def _refuse_unknown(denoiser: nn.Module, known: set[int]) -> None:
    """Every block that cross-attends must be one that can be read, and there must be one."""
    unread = {
        path.rpartition(".")[0]
        for path, module in denoiser.named_modules()
        if getattr(module, "is_cross_attention", False)
        and id(module) not in known
        and not path.startswith(_BESIDE)
    }
    if known and not unread:
        return
    owners = [denoiser.get_submodule(path.rpartition(".")[0]) for path in sorted(unread)]
    blocks = sorted({type(m).__name__ for m in owners})
    raise UnknownFamilyError(
        f"{type(denoiser).__name__} has attention blocks that cannot be read "
        f"({', '.join(blocks) or 'none that looks at a condition'}); known are "
        f"BasicTransformerBlock, SanaTransformerBlock, JointTransformerBlock, "
        f"FluxTransformerBlock and FluxSingleTransformerBlock"
    )


def _sites_of(path: str, block: Any) -> Iterator[Site]:
    classes = {cls.__name__ for cls in type(block).__mro__}
    if "BasicTransformerBlock" in classes:
        if block.only_cross_attention and block.attn1.is_cross_attention:
            yield Site(f"{path}.attn1", block.attn1, "cross")
        if block.attn2 is not None and block.attn2.is_cross_attention:
            yield Site(f"{path}.attn2", block.attn2, "cross")
    elif "SanaTransformerBlock" in classes:
        if getattr(block, "attn2", None) is not None:
            yield Site(f"{path}.attn2", block.attn2, "cross")
    elif "JointTransformerBlock" in classes:
        yield Site(f"{path}.attn", block.attn, "image_text")
    elif "FluxTransformerBlock" in classes:
        yield Site(f"{path}.attn", block.attn, "text_image")
    elif "FluxSingleTransformerBlock" in classes:
        yield Site(f"{path}.attn", block.attn, "text_image", block)


def grids(
    denoiser: Any, sites: Sequence[Site], sample: Any, arguments: Mapping[str, Any]
) -> dict[str, tuple[int, int]]:
    """(height, width) in places of every site, for this input of the denoiser.

    Args:
        denoiser: The denoiser.
        sites: Its sites.
        sample: The noisy input: ``[B, C, H, W]``, or FLUX's packed ``[B, places, C]``.
        arguments: The denoiser's arguments by name (FLUX's `img_ids` tell its grid).
    """
    if sample.ndim == 3:
        one = _packed_grid(sample, arguments.get("img_ids"))
        return {site.name: one for site in sites}
    height, width = sample.shape[-2:]
    if hasattr(denoiser, "down_blocks"):
        levels = _levels(denoiser)
        return {site.name: _halved(height, width, levels[_block_of(site.name)]) for site in sites}
    patch = int(getattr(denoiser.config, "patch_size", None) or 1)
    return {site.name: (height // patch, width // patch) for site in sites}


def _packed_grid(sample: Any, ids: Any) -> tuple[int, int]:
    """Rows and columns of FLUX's picture; further sequences (reference pictures) come after it."""
    places = int(sample.shape[1])
    if ids is None:
        return 1, places
    ids = ids[0] if ids.ndim == 3 else ids
    own = ids[ids[:, 0] == ids[0, 0]]
    height, width = (int(own[:, axis].max() - own[:, axis].min()) + 1 for axis in (1, 2))
    return (height, width) if height * width <= places else (1, places)


def _levels(unet: Any) -> dict[str, int]:
    """How often the places were halved in each block of a UNet."""
    levels, level = {}, 0
    for i, block in enumerate(unet.down_blocks):
        levels[f"down_blocks.{i}"] = level
        level += bool(getattr(block, "downsamplers", None))
    levels["mid_block"] = level
    for i, block in enumerate(unet.up_blocks):
        levels[f"up_blocks.{i}"] = level
        level -= bool(getattr(block, "upsamplers", None))
    return levels


def _block_of(name: str) -> str:
    parts = name.split(".")
    return parts[0] if parts[0] == "mid_block" else ".".join(parts[:2])


def _halved(height: int, width: int, times: int) -> tuple[int, int]:
    """Strided 3×3 convolutions with padding 1 round up."""
    for _ in range(times):
        height, width = -(-height // 2), -(-width // 2)
    return height, width

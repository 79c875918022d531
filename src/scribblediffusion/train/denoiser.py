"""Train the denoiser with its prompt and sketch encoders: flow matching in latent space.

The sample is x_σ = (1 − σ)·x + σ·ε and the network predicts the velocity ε − x (Lipman et al.
2023; Liu et al. 2023). Two losses stand beside the velocity's:

- *coarse*: the same error averaged over 4×4 cells, where flat colour lives;
- *grounding*: the maps of an object's words should lie in the object's mask, and where an
  object is its own words should outweigh the other objects' (after TokenCompose, Wang et al.
  2024). The scenes come with masks, so that this is ground truth, used in training only.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from scribblediffusion.model.strokes import SketchEncoder
from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.model.tokens import EMPTY_PROMPT, tokenize
from scribblediffusion.model.unet import SHIPPED, ScribbleUNet
from scribblediffusion.train.latents import Shard, object_masks, unpack
from scribblediffusion.train.words import word_table, word_tokenizer

log = logging.getLogger(__name__)

#: The layers whose maps the grounding loss looks at.
GROUNDED = (
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn2",
)


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    `pool` 2 trains on latents averaged over 2×2 cells: four times cheaper, and flat colours keep
    their values, so that words can be learnt there before details are.
    """

    batch: int = 16
    rate: float = 1.2e-3
    pool: int = 1
    warm_up: int = 150
    average: float = 0.999
    coarse: float = 4.0
    grounding: float = 0.05
    drop_text: float = 0.10
    drop_sketch: float = 0.07
    drop_both: float = 0.05


@dataclass
class Batch:
    """One step's data. T is the longest caption's number of tokens."""

    latents: Tensor  # [B, 4, 32, 32]
    ink: Tensor  # [B, 1, 256, 256]
    ids: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool
    labels: np.ndarray  # [B, 32, 32]
    words: Tensor  # [B, 3, T] bool: tokens that name object 0, 1, 2 or its colour


class Denoiser(nn.Module):
    """The three trained parts."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = ScribbleUNet(**SHIPPED)
        self.prompt_encoder = PromptEncoder()
        self.sketch_encoder = SketchEncoder()

    def context(
        self, batch: Batch, keep_text: Tensor, keep_sketch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keys `[B, T + 77, 256]` and their mask; a dropped text is `[CLS] [SEP]`."""
        empty = torch.zeros_like(batch.ids)
        empty[:, :2] = torch.tensor(EMPTY_PROMPT)
        ids = torch.where(keep_text[:, None], batch.ids, empty)
        ends = torch.arange(ids.shape[1])[None] < 2
        mask = torch.where(keep_text[:, None], batch.mask, ends)
        text, sketch = self.prompt_encoder(ids, mask), self.sketch_encoder(batch.ink)
        shown = keep_sketch[:, None].expand(-1, sketch.shape[1])
        return torch.cat([text, sketch], 1), torch.cat([mask, shown], 1)


def batches(data: Shard, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Endless shuffled batches."""
    tokenizer = word_tokenizer()
    while True:
        order = rng.permutation(len(data))
        for start in range(0, len(order) - size + 1, size):
            yield collate(data, order[start : start + size], tokenizer)


def collate(data: Shard, rows: np.ndarray, tokenizer: Any) -> Batch:
    """The scenes numbered `rows` as one batch."""
    captions = [data.captions[i] for i in rows]
    ids, mask = tokenize(tokenizer, captions, crop=True)
    words = torch.zeros(len(rows), 3, ids.shape[1], dtype=torch.bool)
    offsets = tokenizer(captions, return_offsets_mapping=True)["offset_mapping"]
    for row, i in enumerate(rows):
        for number, _, start, end in data.spans[i]:
            for token, (a, b) in enumerate(offsets[row]):
                if start <= a < b <= end:
                    words[row, number, token] = True
    latents = torch.from_numpy(data.latents[rows]).float()
    return Batch(latents, unpack(data.ink[rows]), ids, mask, data.labels[rows], words)


class _Watch:
    """Keeps the queries and keys of the grounded layers during one forward pass."""

    def __init__(self, unet: ScribbleUNet) -> None:
        self.unet = unet
        self.seen: dict[str, dict[str, Tensor]] = {name: {} for name in GROUNDED}

    def __enter__(self) -> _Watch:
        with ExitStack() as stack:
            for name in GROUNDED:
                attention = self.unet.get_submodule(name)
                for which in ("to_q", "to_k"):
                    hook = attention.get_submodule(which).register_forward_hook(
                        self._keep(name, which)
                    )
                    stack.callback(hook.remove)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _keep(self, name: str, which: str) -> Any:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            self.seen[name][which] = output

        return hook

    def weights(self, mask: Tensor) -> Iterator[Tensor]:
        """Attention of each layer, mean over heads: `[B, places, keys]`, rows sum to 1."""
        for name, kept in self.seen.items():
            attention: Any = self.unet.get_submodule(name)
            q, k = (kept[w].unflatten(-1, (attention.heads, -1)).transpose(1, 2) for w in kept)
            logits = (q @ k.transpose(-1, -2)).float() * attention.scale
            logits = logits.masked_fill(~mask[:, None, None], -1e4)
            yield logits.softmax(-1).mean(1)


def grounding_loss(weights: Tensor, batch: Batch) -> Tensor:
    """How far the words' maps are from their objects, 0 at best.

    Args:
        weights: `[B, places, keys]`, the text's keys first.
        batch: where the objects are and which tokens name them.
    """
    text = weights[..., : batch.ids.shape[1]]
    side = int(text.shape[1] ** 0.5)
    masks = object_masks(batch.labels, side).flatten(2)  # [B, 3, P]
    named = batch.words.float()  # [B, 3, T]
    per_token = torch.einsum("bop,bpt->bot", masks, text) / (text.sum(1)[:, None] + 1e-6)
    inside = ((1 - per_token).square() * named).sum() / named.sum().clamp_min(1)
    by_object = torch.einsum("bpt,bot->bop", text, named) + 1e-6
    share = by_object / by_object.sum(1, keepdim=True)
    binding = -(share.log() * masks).sum() / masks.sum().clamp_min(1)
    return inside + binding


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """σ for each sample: half uniform, half leaning to much noise, where colour is decided."""
    uniform = torch.rand(count, generator=generator)
    leaning = torch.rand(count, generator=generator).sqrt()
    return torch.where(torch.rand(count, generator=generator) < 0.5, uniform, leaning)


def velocity(model: Denoiser, batch: Batch, sigma: Tensor, noise: Tensor, keep: tuple) -> tuple:
    """The network's velocity for a noised batch, and the mask of the keys."""
    level = sigma[:, None, None, None]
    noised = ((1 - level) * batch.latents + level * noise).contiguous(
        memory_format=torch.channels_last
    )
    context, mask = model.context(batch, *keep)
    output = model.unet(noised, sigma * 1000, context, encoder_attention_mask=mask.float())
    return output.sample.float(), mask


class Trainer:
    """A training run that can be stopped and gone on with."""

    def __init__(self, recipe: Recipe, data: Shard, *, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.recipe, self.step, self.seed = recipe, 0, seed
        model: Any = Denoiser()
        self.model: Denoiser = model.to(memory_format=torch.channels_last)
        self.model.prompt_encoder.set_table(word_table())
        # Plain products: their backward pass in bfloat16 is twice as fast as the fused kernel's.
        self.model.unet.set_attn_processor(AttnProcessor())
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.generator = torch.Generator().manual_seed(seed)
        self.batches = batches(data, recipe.batch, np.random.default_rng(seed))
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, betas=(0.9, 0.98))
        self.recent: list[tuple[float, float]] = []
        self.grounded: list[float] = []

    def run_step(self, scale: float = 1.0) -> None:
        """One update, with the learning rate times `scale`."""
        recipe, batch = self.recipe, next(self.batches)
        if recipe.pool > 1:
            batch.latents = F.avg_pool2d(batch.latents, recipe.pool)
        size = len(batch.latents)
        sigma = noise_levels(size, self.generator)
        noise = torch.randn(batch.latents.shape, generator=self.generator)
        chance = torch.rand(size, generator=self.generator)
        both, text = recipe.drop_both, recipe.drop_both + recipe.drop_text
        keep_text = chance >= text
        keep_sketch = ~((chance < both) | ((chance >= text) & (chance < text + recipe.drop_sketch)))
        warm = min(1.0, (self.step + 1) / recipe.warm_up) * scale
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * warm
        with _Watch(self.model.unet) as watch, torch.autocast("cpu", torch.bfloat16):
            output, mask = velocity(self.model, batch, sigma, noise, (keep_text, keep_sketch))
        error = output - (noise - batch.latents)
        loss = error.square().mean()
        loss = loss + recipe.coarse * F.avg_pool2d(error, 4 // recipe.pool).square().mean()
        if recipe.grounding:
            grounded = torch.stack([grounding_loss(w, batch) for w in watch.weights(mask)]).mean()
            loss = loss + recipe.grounding * grounded
            self.grounded.append(float(grounded.detach()))
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        each = error.detach().square().mean((1, 2, 3))
        self.recent += list(zip(sigma.tolist(), each.tolist(), strict=True))

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.recipe.average, self.step / (self.step + 20))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)

    def report(self) -> str:
        """Loss of the velocity by noise quarter since the last report, for people."""
        sigma, value = np.array(self.recent).T
        quarters = [value[(sigma * 4).astype(int).clip(0, 3) == i].mean() for i in range(4)]
        grounded = np.mean(self.grounded) if self.grounded else float("nan")
        self.recent, self.grounded = [], []
        return " ".join(f"{q:.3f}" for q in quarters) + f" | grounding {grounded:.3f}"

    def save(self, folder: Path) -> None:
        """A checkpoint: `state.safetensors` and `state.json`, written whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": v for k, v in values.items()}
        tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        save_file(tensors, folder / "state.tmp")
        (folder / "state.tmp").rename(folder / "state.safetensors")
        about = {"step": self.step, "seed": self.seed, "recipe": asdict(self.recipe)}
        (folder / "state.json").write_text(json.dumps(about))

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        tensors = load_file(folder / "state.safetensors")
        part = lambda name: {  # noqa: E731
            k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)
        }
        self.model.load_state_dict(part("model."))
        self.average = part("average.")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimiser.").items():
            number, name = key.split(".", 1)
            state.setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        self.step = json.loads((folder / "state.json").read_text())["step"]


def train(
    trainer: Trainer, folder: Path, *, minutes: float, fall: float = 0.0, every: float = 240
) -> None:
    """Train for `minutes` of wall time.

    Args:
        trainer: the run.
        folder: where checkpoints go.
        minutes: wall time.
        fall: share of the time, at its end, over which the learning rate falls to nothing.
        every: seconds between checkpoints.
    """
    start = saved = said = time.time()
    while (done := (time.time() - start) / (minutes * 60)) < 1:
        trainer.run_step(min(1.0, (1 - done) / fall) if fall else 1.0)
        now = time.time()
        if now - said > 60:
            rate = len(trainer.recent) / (now - said)
            log.info("step %d: %s | %.1f images/s", trainer.step, trainer.report(), rate)
            said = now
        if now - saved > every:
            trainer.save(folder)
            saved = now
    trainer.save(folder)

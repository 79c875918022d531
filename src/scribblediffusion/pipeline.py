"""`ScribblePipeline`: sketch and prompt in, picture out.

    condition ─▶ denoise, step by step (a generator) ─▶ decode

Flow matching with Euler steps (Lipman et al. 2023; Liu et al. 2023): the sample is
x_σ = (1 − σ)·x + σ·ε, so that σ is exactly the share of noise that remains. What a run listens to,
and how much, is in `guidance`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor

from scribblediffusion.attention.layout import KeyLayout
from scribblediffusion.errors import SamplingError, SettingError, WeightsError
from scribblediffusion.guidance import Condition, branch_weights, row_weights
from scribblediffusion.model import weights
from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.strokes import SketchEncoder
from scribblediffusion.model.text import TEXT_TOKENS, PromptEncoder
from scribblediffusion.model.tokens import tokenize
from scribblediffusion.model.unet import ScribbleUNet
from scribblediffusion.prompt import Reading, read
from scribblediffusion.settings import (
    GUIDANCE,
    SKETCH_GUIDANCE,
    check_generator,
    check_prompts,
    check_settings,
    listed,
    one_each,
    seeds_of,
)
from scribblediffusion.sketch import REGIONS, SIZE, Sketch

LATENT = SIZE // 8

SketchLike = Any  # a path, a PIL image, an array or a Sketch; a list of them for a batch


@dataclass(frozen=True)
class Step:
    """One finished step of the sampler, most noise first.

    Attributes:
        index: 0 … count − 1, in the order run.
        count: how many steps the run has.
        timestep: what the denoiser was told (1000·σ).
        sigma: the noise level that the denoiser saw.
        latents: `[B, 4, 32, 32]` after the step.
        denoised: `[B, 4, 32, 32]`, the clean sample as the denoiser saw it at this step.
        preview: makes a picture of `denoised` when called (`ScribblePipeline.preview`):
            `[B, 256, 256, 3]` uint8.
    """

    index: int
    count: int
    timestep: float
    sigma: float
    latents: Tensor
    denoised: Tensor
    preview: Callable[[], np.ndarray] = field(repr=False)

    @property
    def noise_remaining(self) -> float:
        """Share of noise in the sample that the denoiser saw: for flow matching σ itself."""
        return self.sigma


@dataclass
class ScribbleOutput(BaseOutput):
    """What a run gives back.

    Attributes:
        images: B pictures, as `output_type` says.
        sketches: B cleaned sketches, None where there was none; one without ink was not heard.
    """

    images: Any
    sketches: list[Sketch | None]


class ScribblePipeline(DiffusionPipeline):
    """Sketch and prompt to a 256×256 picture, a diffusers pipeline.

    Example:
        >>> pipe = ScribblePipeline.from_pretrained()  # doctest: +SKIP
        >>> pipe("a red apple", "apple.png").images[0].save("out.png")  # doctest: +SKIP

    Attributes:
        observers: whoever wants to hear of runs (see `attention.layout`); empty by default.
    """

    model_cpu_offload_seq = "prompt_encoder->sketch_encoder->unet->autoencoder"

    # Registered by name at run time, and typed loosely by diffusers.
    unet: Any
    prompt_encoder: Any
    sketch_encoder: Any
    autoencoder: Any
    tokenizer: Any
    scheduler: Any

    def __init__(
        self,
        unet: ScribbleUNet,
        prompt_encoder: PromptEncoder,
        sketch_encoder: SketchEncoder,
        autoencoder: ScribbleAutoencoder,
        tokenizer: Any,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet,
            prompt_encoder=prompt_encoder,
            sketch_encoder=sketch_encoder,
            autoencoder=autoencoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self.observers: list[Any] = []
        self._layout: KeyLayout | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        source: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> ScribblePipeline:
        """Load the shipped weights, a folder, or a hub id.

        Args:
            source: None for the weights that come with the package, a folder, or a hub id.
            device: where to; None picks CUDA, then MPS, then the CPU.
            **kwargs: as diffusers' `DiffusionPipeline.from_pretrained`; there is no `variant`
                and no `device_map`, and pickles are never loaded.

        Raises:
            WeightsError: a file is missing, damaged, altered, a pickle, or does not fit.
        """
        _refuse_unchecked(kwargs)
        folder = cls._folder(source, kwargs)
        weights.verify(folder)
        if "tokenizer" not in kwargs:
            kwargs["tokenizer"] = weights.load_tokenizer(folder)
        dtype = kwargs.pop("torch_dtype", torch.float32)  # its name before diffusers 0.42
        kwargs = {"dtype": dtype, "low_cpu_mem_usage": False} | kwargs
        pipe = super().from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **kwargs
        )
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.autoencoder.to(memory_format=torch.channels_last)
        return pipe.to(device or best_device())

    def save_config(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As diffusers', whose `save_pretrained` ends with it; checksums are added."""
        super().save_config(save_directory, *args, **kwargs)
        weights.write_checksums(Path(save_directory))

    @classmethod
    def _folder(cls, source: str | Path | None, kwargs: dict[str, Any]) -> Path:
        names = ("cache_dir", "revision", "token", "local_files_only", "force_download", "proxies")
        options = {name: kwargs.pop(name) for name in names if name in kwargs}
        if source is None:
            return weights.shipped()
        try:
            if Path(source).exists() or Path(source).is_absolute():
                return Path(source)
            # `cls.download` refuses parts of another library, and leaves the checksums out
            return Path(snapshot_download(str(source), **weights.WANTED, **options))
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{str(source)!r} is neither a folder here nor a model that a hub gave us "
                f"({error}); leave it out for the shipped weights"
            ) from error

    # ---------------------------------------------------------------- condition

    @staticmethod
    def clean(
        prompt: str | Sequence[str], sketch: SketchLike, sketch_mask: SketchLike = None
    ) -> list[Sketch | None]:
        """One cleaned sketch for each prompt, None where there is none.

        Warns where a sketch shows no ink, or a mask leaves none: the words alone count then.

        Raises:
            SketchError: an image that cannot be read as a sketch.
            PromptError: another number of sketches or masks than of prompts.
            SettingError: a mask without a sketch.
        """
        count = len(listed(prompt))
        sketches = one_each(sketch, count, "sketches")
        masks = one_each(sketch_mask, count, "masks")
        if all(s is None for s in sketches) and any(m is not None for m in masks):
            raise SettingError("sketch_mask: there is no sketch to mask; give one, or no mask")
        pairs = list(zip(sketches, masks, strict=True))
        cleaned = [None if s is None else Sketch.from_image(s, mask=m) for s, m in pairs]
        _warn_blank(pairs, cleaned)
        return cleaned

    def condition(
        self,
        prompt: str | Sequence[str],
        sketch: SketchLike = None,
        sketch_mask: SketchLike = None,
        count: int = 1,
    ) -> Condition:
        """Clean the sketches and tokenize the prompts.

        Args:
            prompt: one prompt or a list.
            sketch: one sketch for all, or a list with one (or None) for each prompt.
            sketch_mask: where the sketch has a say; ink outside is erased, and a region wholly
                outside has weight exactly 0. One for all, or a list.
            count: pictures for each prompt.

        Raises:
            PromptError: too long, not text, or too many.
            SketchError: an image that cannot be read as a sketch.
            SettingError: a mask without a sketch.
        """
        prompts = check_prompts(prompt, count)
        cleaned = self.clean(prompts, sketch, sketch_mask)
        prompts = [p for p in prompts for _ in range(count)]
        cleaned = [_with_ink(c) for c in cleaned for _ in range(count)]
        ids, text = tokenize(self.tokenizer, prompts)
        readings = self._readings(ids, prompts)
        _warn_cut(readings)
        blank = np.zeros((SIZE, SIZE), bool)
        ink = np.stack([blank if c is None else c.strokes for c in cleaned])
        none = np.zeros(len(REGIONS), bool)
        regions = np.stack([none if c is None else np.asarray(c.active) for c in cleaned])
        device = self._execution_device
        return Condition(
            prompts=tuple(prompts),
            readings=readings,
            sketches=tuple(cleaned),
            ids=ids.to(device),
            text=text.to(device),
            regions=torch.from_numpy(regions).to(device),
            ink=torch.from_numpy(ink[:, None]).to(device, self.unet.dtype),
        )

    def _readings(self, ids: Tensor, prompts: Sequence[str]) -> tuple[Reading, ...]:
        rows = zip(ids.tolist(), prompts, strict=True)
        return tuple(read(self.tokenizer, row, [one]) for row, one in rows)

    @torch.no_grad()
    def context(self, condition: Condition, branches: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Keys `[branches·B, 154, 256]` and which of them count, `[branches·B, 154]` bool."""
        ids, text = tokenize(self.tokenizer, [""] * len(condition.prompts))
        empty = text.to(condition.text.device)
        without = self.prompt_encoder(ids.to(empty.device), empty)
        words = self.prompt_encoder(condition.ids, condition.text)
        strokes = self.sketch_encoder(condition.ink)
        silent = torch.zeros_like(condition.regions)
        keys = {
            "unconditional": (without, empty, silent),
            "sketch_only": (without, empty, condition.regions),
            "full": (words, condition.text, condition.regions),
        }
        chosen = [keys[branch] for branch in branches]
        vectors = torch.cat([torch.cat([text, strokes], 1) for text, _, _ in chosen])
        return vectors, torch.cat([torch.cat([text, sketch], 1) for _, text, sketch in chosen])

    def key_layout(self) -> KeyLayout:
        """What the key columns of the current run mean (see `attention.layout`).

        Raises:
            SettingError: nothing has been run yet.
        """
        if self._layout is None:
            raise SettingError("no run has begun, so the keys mean nothing yet: call the pipeline")
        return self._layout

    # ------------------------------------------------------------------ denoise

    def denoise(
        self,
        prompt: str | Sequence[str],
        sketch: SketchLike = None,
        *,
        sketch_mask: SketchLike = None,
        num_inference_steps: int = 20,
        guidance_scale: float = GUIDANCE,
        sketch_guidance_scale: float = SKETCH_GUIDANCE,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
    ) -> Generator[Step]:
        """The sampler: one `Step` after another; leave the loop to stop.

        Arguments and errors are those of `__call__`; they are checked at once, not at the
        first step. A pipeline has one scheduler, so that one run at a time can go on.
        """
        check_settings(num_inference_steps, guidance_scale, sketch_guidance_scale)
        condition = self.condition(prompt, sketch, sketch_mask, num_images_per_prompt)
        sample = self._noise(len(condition.prompts), generator, latents)
        settings = {
            "num_inference_steps": int(num_inference_steps),
            "guidance_scale": float(guidance_scale),
            "sketch_guidance_scale": float(sketch_guidance_scale),
            "height": SIZE,
            "width": SIZE,
        } | seeds_of(generator)
        return self._denoise(condition, sample, settings)

    def _denoise(
        self, condition: Condition, sample: Tensor, settings: dict[str, Any]
    ) -> Generator[Step]:
        dials = settings["guidance_scale"], settings["sketch_guidance_scale"]
        branches = list(branch_weights(condition, *dials))
        rows = row_weights(condition, *dials)
        shares = sample.new_tensor([[row.get(name, 0.0) for row in rows] for name in branches])
        vectors, mask = self.context(condition, branches)
        count = settings["num_inference_steps"]
        sigmas = np.linspace(1.0, 1 / count, count)
        self.scheduler.set_timesteps(sigmas=sigmas.tolist(), device=sample.device)
        self._begin(condition, branches, settings)
        timesteps = self.scheduler.timesteps
        for index, timestep in enumerate(timesteps):
            if self.scheduler.timesteps is not timesteps:
                raise SettingError(
                    "another run of this pipeline began before this one ended, at step "
                    f"{index + 1} of {count}: end one first, or give each its own pipeline"
                )
            sigma = float(self.scheduler.sigmas[index])
            velocity = self._velocity(sample, timestep, vectors, mask, shares)
            denoised = sample - sigma * velocity
            sample = self.scheduler.step(velocity, timestep, sample, return_dict=False)[0]
            if not bool(torch.isfinite(sample).all()):
                raise SamplingError(
                    f"the denoiser gave values that are not finite at step {index + 1} of {count} "
                    f"(noise remaining {sigma:.0%}); there is no picture. Lower the guidance"
                )
            step = Step(
                index, count, float(timestep), sigma, sample, denoised, self._preview_of(denoised)
            )
            self._tell(step)
            yield step

    @torch.no_grad()
    def _velocity(
        self,
        sample: Tensor,
        timestep: Tensor,
        vectors: Tensor,
        mask: Tensor,
        shares: Tensor,
    ) -> Tensor:
        """All branches in one call of the denoiser, put together by their shares `[K, B]`."""
        stacked = torch.cat([sample] * len(shares)).contiguous(memory_format=torch.channels_last)
        output = self.unet(
            stacked, timestep, vectors, encoder_attention_mask=mask.to(vectors.dtype)
        ).sample
        parts = torch.stack(output.chunk(len(shares)))
        return torch.einsum("kb,kbchw->bchw", shares.to(output), parts)

    def _noise(
        self,
        count: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
    ) -> Tensor:
        shape = (count, self.unet.config.in_channels, LATENT, LATENT)
        check_generator(generator, count)
        generator = list(generator) if isinstance(generator, tuple) else generator
        if latents is None:
            return randn_tensor(shape, generator, self._execution_device, self.unet.dtype)
        if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
            found = tuple(latents.shape) if hasattr(latents, "shape") else latents
            raise SettingError(
                f"latents: a tensor of shape {shape} was expected, found a "
                f"{type(latents).__name__}, {found}"
            )
        if not bool(torch.isfinite(latents).all()):
            raise SettingError("latents hold values that are not finite")
        return latents.to(self._execution_device, self.unet.dtype)

    # ------------------------------------------------------------------- decode

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents `[B, 4, 32, 32]` to pictures `[B, 256, 256, 3]` uint8.

        Raises:
            SamplingError: the decoder gave values that are not finite.
        """
        return _pixels(self.autoencoder.decode(latents.to(self.autoencoder.dtype)))

    @torch.no_grad()
    def preview(self, latents: Tensor) -> np.ndarray:
        """As `decode`, softer and in a tenth of the time: by the autoencoder's preview network.

        Raises:
            SamplingError: it gave values that are not finite.
        """
        return _pixels(self.autoencoder.preview(latents.to(self.autoencoder.dtype)))

    def _preview_of(self, denoised: Tensor) -> Callable[[], np.ndarray]:
        return lambda: self.preview(denoised)

    # --------------------------------------------------------------------- call

    def __call__(
        self,
        prompt: str | Sequence[str],
        sketch: SketchLike = None,
        *,
        sketch_mask: SketchLike = None,
        num_inference_steps: int = 20,
        guidance_scale: float = GUIDANCE,
        sketch_guidance_scale: float = SKETCH_GUIDANCE,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ScribbleOutput | tuple:
        """Draw pictures.

        Args:
            prompt: what to draw; "" for the sketch alone. A list draws a batch.
            sketch: a path, PIL image, array or `Sketch`; None for the text alone. A list gives
                each prompt its own.
            sketch_mask: an image; where it is black the sketch has no say. A list gives each
                prompt its own.
            num_inference_steps: Euler steps, 1–1000.
            guidance_scale: how much more the words count than in the bare model (1.0).
            sketch_guidance_scale: the same for the sketch; 1.0 saves a third of the work.
            num_images_per_prompt: pictures for each prompt.
            generator: seeded noise; a list gives each picture its own, so that it comes out the
                same at any place of a batch of that size, beside whatever pictures.
            latents: start from this noise instead, `[B, 4, 32, 32]`.
            output_type: "pil", "np" (uint8 `[B, 256, 256, 3]`), or "latent".
            return_dict: False gives a plain tuple.

        Raises:
            SketchError, PromptError, SettingError: what was given cannot be used.
            SamplingError: a value that is not finite; there is no picture.
        """
        if output_type not in ("pil", "np", "latent"):
            raise SettingError(f"output_type {output_type!r} is not one of 'pil', 'np', 'latent'")
        cleaned = self.clean(prompt, sketch, sketch_mask)
        steps = self.denoise(
            prompt,
            cleaned,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            sketch_guidance_scale=sketch_guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
        )
        sample: Any = latents
        bar: Any = self.progress_bar
        with closing(steps), bar(total=num_inference_steps) as shown:
            for step in steps:
                sample = step.latents
                shown.set_description(f"Noise remaining: {step.noise_remaining:.0%}")
                shown.update()
        images: Any = sample
        if output_type != "latent":
            images = self.finish(sample)
            if output_type == "pil":
                images = [Image.fromarray(picture) for picture in images]
        self.maybe_free_model_hooks()
        sketches = [one for one in cleaned for _ in range(num_images_per_prompt)]
        return ScribbleOutput(images, sketches) if return_dict else (images, sketches)

    def finish(self, latents: Tensor, *, complete: bool = True) -> np.ndarray:
        """Decode a run's latents and tell the observers that its pictures are there.

        Args:
            latents: `[B, 4, 32, 32]`; after a stop, those of the last step, or its `denoised`.
            complete: False where the run was stopped on purpose.

        Returns:
            `[B, 256, 256, 3]` uint8.
        """
        pictures = self.decode(latents)
        for observer in list(self.observers):
            observer.run_ends(pictures, complete)
        return pictures

    def _begin(self, condition: Condition, branches: list[str], settings: dict[str, Any]) -> None:
        nothing = [""] * len(condition.prompts)
        empty = self._readings(tokenize(self.tokenizer, nothing)[0], nothing)
        self._layout = KeyLayout.of_text_and_sketch(
            {name: condition.readings if name == "full" else empty for name in branches},
            text_length=TEXT_TOKENS,
            regions=REGIONS,
            picture_size=(SIZE, SIZE),
        )
        sketch = condition.sketches[0]
        drawn = None if sketch is None else np.asarray(sketch.to_image())
        more = {} if condition.one_sketch else {"sketches": list(condition.sketches)}
        for observer in list(self.observers):
            observer.run_begins(list(condition.prompts), drawn, settings, **more)

    def _tell(self, step: Step) -> None:
        observers = list(self.observers)
        wanted = any(observer.wants_previews for observer in observers)
        preview = self.preview(step.denoised[:1])[0] if wanted else None
        for observer in observers:
            observer.step_ends(preview)


def best_device() -> torch.device:
    """CUDA where there is one, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _refuse_unchecked(kwargs: dict[str, Any]) -> None:
    """Takes out what diffusers is told anyway; refuses what would load files never looked at.

    And what would load the parts in another way than it is done here.
    """
    if kwargs.pop("use_safetensors", None) is False:
        raise WeightsError("use_safetensors=False: pickles are never loaded; leave it out")
    for name in ("variant", "use_flashpack"):
        if found := kwargs.pop(name, None):
            raise WeightsError(
                f"{name}={found!r}: the weights are read from {weights.FILE} alone; leave it out, "
                "and choose the precision with dtype="
            )
    if found := kwargs.pop("device_map", None):
        raise WeightsError(
            f"device_map={found!r}: the model is small, and loaded whole; leave it out, and choose "
            "where to with device="
        )


def _pixels(pictures: Tensor) -> np.ndarray:
    """Pictures `[B, 3, H, W]` in −1…1 to `[B, H, W, 3]` uint8."""
    pictures = pictures.float()
    if not bool(torch.isfinite(pictures).all()):
        raise SamplingError(
            "the decoder gave values that are not finite; there is no picture. "
            "Lower the guidance, or load the model in another dtype"
        )
    scaled = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def _warn_blank(pairs: Sequence[tuple[Any, Any]], cleaned: Sequence[Sketch | None]) -> None:
    """Who gives a `Sketch` without a mask knows whether it is blank."""
    for (given, mask), one in zip(pairs, cleaned, strict=True):
        if one is None or not one.is_blank or (isinstance(given, Sketch) and mask is None):
            continue
        where = "in the sketch" if mask is None else "where the mask lets the sketch have a say"
        text = f"no ink was found {where}, so the words alone count ({one.cleaning})"
        warnings.warn(text, stacklevel=4)


def _with_ink(sketch: Sketch | None) -> Sketch | None:
    """A blank drawing is no drawing: the model then listens to the text alone."""
    return None if sketch is None or sketch.is_blank else sketch


def _warn_cut(readings: Sequence[Reading]) -> None:
    for lost in dict.fromkeys(reading.truncated for reading in readings):
        if lost:
            warnings.warn(
                f"the model reads {TEXT_TOKENS - 2} tokens; left out: {' '.join(lost)}",
                stacklevel=5,
            )

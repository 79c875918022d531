"""Variants of the tiny pipelines: ControlNet, T2I-Adapter, image to image, inpainting, IP-Adapters.

Only the denoiser's attention is recorded; what is added beside it must change nothing of that.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    HeunDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    T2IAdapter,
)
from diffusers.models.attention_processor import (
    IPAdapterAttnProcessor2_0,
    SD3IPAdapterJointAttnProcessor2_0,
)
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterTimeImageProjection,
    MultiIPAdapterImageProjection,
)
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from PIL import Image
from tiny_pipelines import flux, quiet, sd3, sdxl, stable_diffusion, unet

PICTURE = Image.new("RGB", (24, 32), "red")
MASK = Image.new("L", (24, 32), 255)
SIZE = {"height": 32, "width": 24}
HALF = {"strength": 0.5, "num_inference_steps": 8}


def controlnet(**changes: Any) -> ControlNetModel:
    """One whose zero convolutions are not zero, so that it matters."""
    torch.manual_seed(11)
    settings = {"cross_attention_dim": 32, "attention_head_dim": 4} | changes
    network = ControlNetModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        norm_num_groups=4,
        conditioning_embedding_out_channels=(8, 16),
        **settings,
    ).eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def controlnet_xl() -> ControlNetModel:
    return controlnet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=56,
    )


def t2i_adapter() -> T2IAdapter:
    torch.manual_seed(12)
    return T2IAdapter(
        in_channels=3,
        channels=[16, 32],
        num_res_blocks=1,
        downscale_factor=2,
        adapter_type="full_adapter",
    ).eval()


def sd(cls: Any, *without: str, **parts: Any) -> Any:
    own = {k: v for k, v in stable_diffusion().components.items() if k not in without}
    return quiet(cls(**(own | parts), requires_safety_checker=False))


def xl(cls: Any, **parts: Any) -> Any:
    options = {} if cls is StableDiffusionXLAdapterPipeline else {"add_watermarker": False}
    return quiet(cls(**(sdxl().components | parts), **options))


#: Name → (pipeline, arguments, steps, calls): what a run of 4 steps, or half of 8, looks like.
VARIANTS: dict[str, tuple[Callable[[], Any], dict[str, Any], int, int]] = {
    "sd2": (
        lambda: stable_diffusion(
            unet=unet(use_linear_projection=True, attention_head_dim=(2, 4), upcast_attention=True),
            scheduler=DDIMScheduler(prediction_type="v_prediction"),
        ),
        SIZE,
        4,
        4,
    ),
    "sd_img2img": (
        lambda: sd(StableDiffusionImg2ImgPipeline, scheduler=DPMSolverMultistepScheduler()),
        {"image": PICTURE, **HALF},
        4,
        4,
    ),
    "sd_img2img_heun": (
        lambda: sd(StableDiffusionImg2ImgPipeline, scheduler=HeunDiscreteScheduler()),
        {"image": PICTURE, **HALF},
        4,
        7,
    ),
    "sd_img2img_pndm": (
        lambda: sd(
            StableDiffusionImg2ImgPipeline,
            scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        ),
        {"image": PICTURE, **HALF},
        4,
        5,
    ),
    "sd_inpaint": (
        lambda: sd(StableDiffusionInpaintPipeline),
        {"image": PICTURE, "mask_image": MASK, **SIZE},
        4,
        4,
    ),
    "sd_inpaint_9_channels": (
        lambda: sd(StableDiffusionInpaintPipeline, unet=unet(in_channels=9)),
        {"image": PICTURE, "mask_image": MASK, **SIZE},
        4,
        4,
    ),
    "sd_controlnet": (
        lambda: sd(StableDiffusionControlNetPipeline, controlnet=controlnet()),
        {"image": PICTURE},
        4,
        4,
    ),
    "sd_controlnet_guess": (
        lambda: sd(StableDiffusionControlNetPipeline, controlnet=controlnet()),
        {"image": PICTURE, "guess_mode": True},
        4,
        4,
    ),
    "sd_two_controlnets": (
        lambda: sd(StableDiffusionControlNetPipeline, controlnet=[controlnet(), controlnet()]),
        {"image": [PICTURE, PICTURE]},
        4,
        4,
    ),
    "sd_controlnet_img2img": (
        lambda: sd(StableDiffusionControlNetImg2ImgPipeline, controlnet=controlnet()),
        {"image": PICTURE, "control_image": PICTURE, **HALF},
        4,
        4,
    ),
    "sd_controlnet_inpaint": (
        lambda: sd(StableDiffusionControlNetInpaintPipeline, controlnet=controlnet()),
        {"image": PICTURE, "mask_image": MASK, "control_image": PICTURE, **SIZE},
        4,
        4,
    ),
    "sd_t2i_adapter": (
        lambda: sd(StableDiffusionAdapterPipeline, "image_encoder", adapter=t2i_adapter()),
        {"image": PICTURE, **SIZE},
        4,
        4,
    ),
    "sd_perturbed_guidance": (
        lambda: sd(StableDiffusionPAGPipeline, pag_applied_layers=["mid"]),
        {"pag_scale": 2.0, **SIZE},
        4,
        4,
    ),
    "sd_latent_consistency": (
        lambda: sd(
            LatentConsistencyModelPipeline,
            unet=unet(time_cond_proj_dim=16),
            scheduler=LCMScheduler(),
        ),
        SIZE,
        4,
        4,
    ),
    "sdxl_img2img": (
        lambda: xl(StableDiffusionXLImg2ImgPipeline, scheduler=EulerDiscreteScheduler()),
        {"image": PICTURE, **HALF},
        4,
        4,
    ),
    "sdxl_inpaint": (
        lambda: xl(StableDiffusionXLInpaintPipeline),
        {"image": PICTURE, "mask_image": MASK, "strength": 1.0, **SIZE},
        4,
        4,
    ),
    "sdxl_controlnet": (
        lambda: xl(StableDiffusionXLControlNetPipeline, controlnet=controlnet_xl()),
        {"image": PICTURE},
        4,
        4,
    ),
    "sdxl_controlnet_img2img": (
        lambda: xl(StableDiffusionXLControlNetImg2ImgPipeline, controlnet=controlnet_xl()),
        {"image": PICTURE, "control_image": PICTURE, **HALF},
        4,
        4,
    ),
    "sdxl_t2i_adapter": (
        lambda: xl(StableDiffusionXLAdapterPipeline, adapter=t2i_adapter()),
        {"image": PICTURE, **SIZE},
        4,
        4,
    ),
    "sd3_img2img": (
        lambda: quiet(StableDiffusion3Img2ImgPipeline(**sd3().components)),
        {"image": PICTURE, "max_sequence_length": 24, **HALF, **SIZE},
        4,
        4,
    ),
    "sd3_skipped_layer_guidance": (
        sd3,
        {"max_sequence_length": 24, "skip_guidance_layers": [1], **SIZE},
        4,
        4,
    ),
    "flux_img2img": (
        lambda: quiet(FluxImg2ImgPipeline(**flux().components)),
        {"image": PICTURE, "max_sequence_length": 24, **HALF, **SIZE},
        4,
        4,
    ),
}


def _projection(width: int) -> MultiIPAdapterImageProjection:
    return MultiIPAdapterImageProjection(
        [ImageProjection(image_embed_dim=16, cross_attention_dim=width, num_image_text_embeds=4)]
    )


def with_ip_adapter(pipe: Any = None, scale: float = 0.7) -> Any:
    """A tiny Stable Diffusion (or the pipeline given) with an IP-Adapter of four tokens."""
    pipe = stable_diffusion() if pipe is None else pipe
    torch.manual_seed(8)
    width = pipe.unet.config.cross_attention_dim
    processors = {}
    for name, old in pipe.unet.attn_processors.items():
        module = pipe.unet.get_submodule(name.removesuffix(".processor"))
        processors[name] = old
        if name.endswith("attn2.processor"):
            processors[name] = IPAdapterAttnProcessor2_0(module.inner_dim, width, scale=scale)
    pipe.unet.set_attn_processor(processors)
    pipe.unet.encoder_hid_proj = _projection(width)
    pipe.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    pipe.unet.eval()
    return pipe


def flux_with_ip_adapter(scale: float = 0.6) -> Any:
    """A tiny FLUX with an IP-Adapter of four tokens in its double blocks."""
    pipe = flux()
    torch.manual_seed(9)
    for block in pipe.transformer.transformer_blocks:
        block.attn.set_processor(FluxIPAdapterAttnProcessor(32, 32, scale=scale))
    pipe.transformer.encoder_hid_proj = _projection(32)
    pipe.transformer.eval()
    return pipe


def sd3_with_ip_adapter(scale: float = 0.6) -> Any:
    """A tiny SD3.5 with its own IP-Adapter: the picture's places are keys of its softmax too."""
    pipe = sd3()
    torch.manual_seed(10)
    for block in pipe.transformer.transformer_blocks:
        block.attn.set_processor(
            SD3IPAdapterJointAttnProcessor2_0(32, 32, 8, timesteps_emb_dim=24, scale=scale)
        )
    pipe.transformer.image_proj = IPAdapterTimeImageProjection(
        embed_dim=16,
        output_dim=32,
        hidden_dim=24,
        depth=1,
        dim_head=8,
        heads=3,
        num_queries=5,
        timestep_in_dim=32,
    )
    pipe.transformer.eval()
    return pipe

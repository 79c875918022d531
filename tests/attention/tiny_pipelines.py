"""Tiny seeded pipelines of every family, built in memory from diffusers' own classes."""

import warnings
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_LETTERS = [chr(c) for c in range(33, 127)]


def clip_tokenizer(length: int = 77) -> CLIPTokenizer:
    """CLIP's byte pairs over letters, with a few merges: words of one, two and many pieces."""
    merges = [("r", "e"), ("re", "d</w>"), ("a", "p"), ("ap", "p"), ("l", "e</w>")]
    vocab = [*_LETTERS, *(c + "</w>" for c in _LETTERS), *(a + b for a, b in merges)]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {piece: i for i, piece in enumerate(vocab)}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=length)


def t5_tokenizer() -> T5Tokenizer:
    """SentencePiece's unigram model over letters and a few words."""
    words = [("▁a", -3.0), ("▁red", -3.0), ("▁app", -3.0), ("le", -3.0)]
    letters = [(c, -6.0) for c in _LETTERS]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0), *letters, *words]
    return T5Tokenizer(vocab=vocab, extra_ids=0)


def clip_encoder(width: int = 32, *, projection: bool = False) -> Any:
    torch.manual_seed(width)
    config = CLIPTextConfig(
        hidden_size=width,
        projection_dim=width,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=200,
        max_position_embeddings=77,
        bos_token_id=193,
        eos_token_id=194,
        pad_token_id=194,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(config).eval()


def t5_encoder(width: int = 32) -> T5EncoderModel:
    torch.manual_seed(5)
    config = T5Config(
        d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4, vocab_size=200, dropout_rate=0.0
    )
    return T5EncoderModel(config).eval()


def vae(**changes: Any) -> AutoencoderKL:
    torch.manual_seed(3)
    settings: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 32,
    }
    return AutoencoderKL(**(settings | changes)).eval()


def unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(settings | changes)).eval()


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion(cls: Any = StableDiffusionPipeline, **changes: Any) -> Any:
    parts = {
        "unet": unet(),
        "vae": vae(),
        "text_encoder": clip_encoder(),
        "tokenizer": clip_tokenizer(),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
    }
    return quiet(cls(**(parts | changes), requires_safety_checker=False))


def sdxl() -> StableDiffusionXLPipeline:
    second = clip_encoder(24, projection=True)
    network = unet(
        cross_attention_dim=56,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
    )
    return quiet(
        StableDiffusionXLPipeline(
            vae=vae(),
            text_encoder=clip_encoder(),
            text_encoder_2=second,
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            unet=network,
            scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
            add_watermarker=False,
        )
    )


def pixart() -> PixArtSigmaPipeline:
    torch.manual_seed(1)
    network = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        norm_num_groups=4,
        use_additional_conditions=False,
    ).eval()
    return quiet(
        PixArtSigmaPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5_encoder(),
            vae=vae(),
            transformer=network,
            scheduler=DPMSolverMultistepScheduler(),
        )
    )


def sana() -> SanaPipeline:
    torch.manual_seed(2)
    network = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
        qk_norm="rms_norm_across_heads",
    ).eval()
    config = Gemma2Config(
        head_dim=4,
        hidden_size=8,
        initializer_range=0.5,
        intermediate_size=16,
        max_position_embeddings=512,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_key_value_heads=1,
        vocab_size=200,
    )
    autoencoder = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    ).eval()
    tokenizer = t5_tokenizer()
    return quiet(
        SanaPipeline(
            transformer=network,
            vae=autoencoder,
            scheduler=DPMSolverMultistepScheduler(
                use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
            ),
            text_encoder=Gemma2Model(config).eval(),
            tokenizer=tokenizer,
        )
    )


def sd3(
    *, qk_norm: str | None = "rms_norm", dual: tuple[int, ...] = (0,)
) -> StableDiffusion3Pipeline:
    torch.manual_seed(4)
    network = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=56,
        out_channels=4,
        qk_norm=qk_norm,
        dual_attention_layers=dual,
    ).eval()
    return quiet(
        StableDiffusion3Pipeline(
            transformer=network,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae(shift_factor=0.1),
            text_encoder=clip_encoder(32, projection=True),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip_encoder(24, projection=True),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5_encoder(64),
            tokenizer_3=t5_tokenizer(),
        )
    )


def flux(*, double: int = 2, single: int = 3) -> FluxPipeline:
    torch.manual_seed(6)
    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    return quiet(
        FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae(shift_factor=0.1),
            text_encoder=clip_encoder(),
            tokenizer=clip_tokenizer(),
            text_encoder_2=t5_encoder(),
            tokenizer_2=t5_tokenizer(),
            transformer=network,
        )
    )


#: Family → (pipeline, arguments of its call).
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "stable_diffusion": (stable_diffusion, {"height": 32, "width": 24}),
    "sdxl": (sdxl, {"height": 32, "width": 24}),
    "pixart": (
        pixart,
        {"height": 32, "width": 24, "use_resolution_binning": False, "clean_caption": False},
    ),
    "sana": (
        sana,
        {
            "height": 64,
            "width": 32,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
            "max_sequence_length": 24,
        },
    ),
    "sd3": (sd3, {"height": 32, "width": 24, "max_sequence_length": 24}),
    "flux": (
        flux,
        {
            "height": 32,
            "width": 24,
            "max_sequence_length": 24,
            "true_cfg_scale": 2.0,
            "negative_prompt": "dim",
        },
    ),
}
PROMPT = "a red apple, red"


def latents_of(
    pipe: Any, prompt: Any = PROMPT, steps: int = 2, seed: int = 1, **options: Any
) -> Any:
    """The final latents of a run."""
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return pipe(
            prompt, num_inference_steps=steps, generator=generator, output_type="latent", **options
        )[0]

"""The extractor on every family: unchanged pictures, proved records, an independent oracle."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import FAMILIES, PROMPT, latents_of, sd3
from torch import Tensor

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import SettingError, UnknownWordError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {name: make() for name, (make, _) in FAMILIES.items()}


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest, pipes: dict[str, Any]) -> tuple[str, Any, dict]:
    return request.param, pipes[request.param], FAMILIES[request.param][1]


def denoiser(pipe: Any) -> torch.nn.Module:
    return getattr(pipe, "unet", None) or pipe.transformer


def hook_count(pipe: Any) -> int:
    modules = [m for c in pipe.components.values() if isinstance(c, torch.nn.Module)
               for m in c.modules()]  # fmt: skip
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_with_kwargs)
        + len(m._forward_pre_hooks_with_kwargs) + len(m._forward_hooks_always_called)
        for m in modules
    )  # fmt: skip


def test_pictures_are_bit_identical_with_and_without_capture(family: tuple) -> None:
    _, pipe, options = family
    before = latents_of(pipe, **options)
    hooks = hook_count(pipe)  # transformers' own, which it installs at the first use
    with RealAttentionExtractor(pipe, heads="all", tokens="all") as extractor:
        during = latents_of(pipe, **options)
    after = latents_of(pipe, **options)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert extractor.trace.audit is not None
    assert extractor.trace.audit.passed, str(extractor.trace.audit)
    assert hook_count(pipe) == hooks


def test_fused_projections_and_slicing_give_the_same_record(family: tuple) -> None:
    name, pipe, options = family
    with RealAttentionExtractor(pipe) as plain:
        latents_of(pipe, **options)
    if name in ("stable_diffusion", "sdxl"):
        pipe.enable_attention_slicing(1)
        with RealAttentionExtractor(pipe) as sliced:
            latents_of(pipe, **options)
        pipe.disable_attention_slicing()
        assert np.allclose(sliced.trace.attention(), plain.trace.attention(), atol=1e-5)
        assert sliced.trace.audit.passed
    if name == "sana":
        return  # its processors cannot be fused
    # diffusers cannot run SD3.5's dual blocks fused, and its fused SD3 processor leaves norms out
    fresh = sd3(dual=()) if name == "sd3" else FAMILIES[name][0]()
    denoiser(fresh).fuse_qkv_projections()
    expected = latents_of(fresh, **options)
    with RealAttentionExtractor(fresh) as fused:
        assert torch.equal(latents_of(fresh, **options), expected)
    assert fused.trace.audit.passed, str(fused.trace.audit)
    assert len(fused.trace.layers) == len(plain.trace.layers)
    if name != "sd3":
        assert np.allclose(fused.trace.attention(), plain.trace.attention(), atol=1e-5)


# ── an independent oracle ────────────────────────────────────────────────────────────────────
# Recomputed from the model's own weights and the inputs of each attention module. It shares no
# code with the extractor: einsum for the products, its own softmax and its own rotary embedding.


def spy_inputs(model: torch.nn.Module) -> tuple[list, Any]:
    seen: list[tuple[str, torch.nn.Module, dict, int | None]] = []
    handles = []
    lengths: dict[str, int] = {}

    def block_hook(path: str) -> Any:
        def hook(_: Any, args: tuple, kwargs: dict) -> None:
            lengths[path] = kwargs["encoder_hidden_states"].shape[1]

        return hook

    def hook(path: str) -> Any:
        def note(module: Any, args: tuple, kwargs: dict) -> None:
            values = dict(kwargs)
            values.setdefault("hidden_states", args[0] if args else None)
            seen.append((path, module, values, lengths.get(path.rsplit(".", 1)[0])))

        return note

    for path, module in model.named_modules():
        if type(module).__name__ == "FluxSingleTransformerBlock":
            handles.append(module.register_forward_pre_hook(block_hook(path), with_kwargs=True))
        if path.split(".")[-1] in ("attn2", "attn"):
            handles.append(module.register_forward_pre_hook(hook(path), with_kwargs=True))
    return seen, handles


def heads_of(x: Tensor, heads: int) -> Tensor:
    b, s, c = x.shape
    return x.reshape(b, s, heads, c // heads).permute(0, 2, 1, 3)


def rms(x: Tensor, module: torch.nn.Module) -> Tensor:
    eps = module.eps
    out = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
    return out if module.weight is None else out * module.weight


def turn(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    even, odd = x[..., 0::2], x[..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = even * cos[:, 0::2] - odd * sin[:, 0::2]
    out[..., 1::2] = odd * cos[:, 1::2] + even * sin[:, 1::2]
    return out


def plain_softmax(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    scores = torch.einsum("bhsd,bhkd->bhsk", q.double(), k.double()) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias.double()[:, None]
    e = (scores - scores.max(-1, keepdim=True).values).exp()
    return e / e.sum(-1, keepdim=True)


def oracle(name: str, module: Any, values: dict, text_length: int | None) -> Tensor:
    """``[B, H, text + image keys (text first), image places]`` of one attention call."""
    x, heads = values["hidden_states"], module.heads
    context = values.get("encoder_hidden_states")
    if name in ("stable_diffusion", "sdxl", "pixart", "sana"):
        q, k = module.to_q(x), module.to_k(context)
        if name == "sana":
            q, k = rms(q, module.norm_q), rms(k, module.norm_k)
        p = plain_softmax(heads_of(q, heads), heads_of(k, heads), values.get("attention_mask"))
        return p.transpose(-1, -2)
    q, k = heads_of(module.to_q(x), heads), heads_of(module.to_k(x), heads)
    q, k = rms(q, module.norm_q), rms(k, module.norm_k)
    if context is not None:
        tk = rms(heads_of(module.add_k_proj(context), heads), module.norm_added_k)
        tq = rms(heads_of(module.add_q_proj(context), heads), module.norm_added_q)
        q, k = torch.cat([tq, q], 2), torch.cat([tk, k], 2)
        text_length = context.shape[1]
    if values.get("image_rotary_emb") is not None:
        q, k = turn(q, values["image_rotary_emb"]), turn(k, values["image_rotary_emb"])
    return plain_softmax(q[:, :, text_length:], k, None).transpose(-1, -2)


def recorded_calls(name: str, seen: list) -> Iterator[tuple[str, Tensor]]:
    for path, module, values, length in seen:
        if path.endswith("attn2") and name == "sd3":
            continue
        yield path, oracle(name, module, values, length)


@torch.no_grad()
def test_an_independent_oracle_agrees(family: tuple) -> None:
    name, pipe, options = family
    with RealAttentionExtractor(pipe, heads="all", tokens="all") as extractor:
        seen, handles = spy_inputs(denoiser(pipe))
        latents_of(pipe, **options)
    for handle in handles:
        handle.remove()
    trace = extractor.trace
    calls: dict[str, list[Tensor]] = {}
    for path, p in recorded_calls(name, seen):
        calls.setdefault(path, []).append(p)
    assert set(calls) == {layer.name for layer in trace.layers}
    for layer in trace.layers:
        # FLUX's true guidance calls twice a step: the prompt, then the negative one.
        truth = calls[layer.name][:: 2 if name == "flux" else 1]
        assert len(truth) == len(trace.steps)
        for step, p in zip(trace.steps, truth, strict=True):
            p = p[-1:]  # in all of these pipelines the prompt comes last
            text = len(trace.streams["text"])
            mine = trace.weights(layer=layer, step=step)
            assert mine.shape == (1, layer.heads, text, layer.places)
            assert np.abs(mine - p[:, :, :text].numpy()).max() < 1e-5
            if "image" in trace.streams:
                image = trace.attention(layer=layer, step=step)[:, :, -1].reshape(
                    1, -1, layer.places
                )
                assert np.abs(image - p[:, :, text:].sum(2).numpy()).max() < 1e-5


def test_words_of_every_tokenizer(family: tuple) -> None:
    name, pipe, options = family
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    trace = extractor.trace
    assert trace.prompt == PROMPT
    assert [word.text for word in trace.words] == ["a", "red", "apple", ",", "red"]
    encoders = 2 if name == "sd3" else 1
    assert [len(word.keys) for word in trace.words] == [n * encoders for n in (1, 1, 2, 1, 1)]
    first, second = trace.word("red"), trace.word("red", occurrence=1)
    assert first.sum() == pytest.approx(1, abs=5e-5)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_a_second_prompt_has_words_of_its_own(name: str, pipes: dict[str, Any]) -> None:
    """Two encoders share the same keys: each key stands for a piece of either prompt."""
    pipe, options = pipes[name], FAMILIES[name][1]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red apple", prompt_2="a blue pie", **options)
    trace = extractor.trace
    assert {w.text for w in trace.words} == {"a", "red", "apple", "blue", "pie"}
    keys = {word.text: word.keys for word in trace.words}
    assert all(len(set(k)) == len(k) for k in keys.values())
    assert {2, 3, 4, 5} <= set(keys["blue"])  # letter by letter in these tiny tokenizers
    assert {3, 4} <= set(keys["apple"])
    assert trace.word("pie").sum() == pytest.approx(1, abs=5e-5)
    assert trace.batch == 1


@pytest.mark.parametrize(
    ("name", "which"), [("sdxl", "prompt_2"), ("sd3", "prompt_2"), ("sd3", "prompt_3")]
)
def test_a_phrase_lies_in_one_of_the_prompts(
    name: str, which: str, pipes: dict[str, Any], tmp_path: Path
) -> None:
    """Saved traces know it too."""
    pipe, options = pipes[name], FAMILIES[name][1]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red apple", **{which: "blue sky apple"}, **options)
    for trace in (extractor.trace, AttentionTrace.load(extractor.trace.save(tmp_path / "t"))):
        words = {w.text: set(w.keys) for w in trace.words}
        for phrase in ("a red apple", "blue sky apple", "blue sky", "red apple"):
            (keys,) = trace.find(phrase)
            assert len(keys) == len(set(keys))
            assert set(keys) == set().union(*(words[w] for w in phrase.split()))
        for nowhere in ("apple blue", "a red apple blue", "red sky", "a blue"):
            with pytest.raises(UnknownWordError, match=nowhere):
                trace.find(nowhere)


def test_a_phrase_of_a_long_prompt_ends_where_the_encoder_stopped(pipes: dict[str, Any]) -> None:
    """SD3's CLIP cuts the prompt before "apple", which only the third prompt has."""
    pipe, options = pipes["sd3"], FAMILIES["sd3"][1]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "blue " * 40 + "apple", prompt_3="apple", **options)
    trace = extractor.trace
    assert trace.find("blue blue")
    assert trace.find("apple") == [trace.words[-1].keys]
    with pytest.raises(UnknownWordError, match="blue apple"):
        trace.find("blue apple")


def test_a_key_that_two_words_share_counts_once(pipes: dict[str, Any]) -> None:
    pipe, options = pipes["sdxl"], FAMILIES["sdxl"][1]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "red apple", prompt_2="apple red", **options)
    trace = extractor.trace
    for phrase in ("red apple", "apple red"):
        (keys,) = trace.find(phrase)
        each = sum(trace.token(k, view="attention") for k in sorted(set(keys)))
        assert trace.word(phrase, view="attention") == pytest.approx(each, abs=1e-6)
        assert trace.word(phrase, view="attention").max() <= 1


def test_one_prompt_for_all_encoders_is_one_text(family: tuple) -> None:
    _, pipe, options = family
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    assert extractor.trace.prompts[0].texts == ()


@pytest.mark.parametrize("prompt", ["İstanbul apple", "  İİ apple", "red İstanbul"])
def test_capitals_whose_small_letters_are_two(prompt: str, family: tuple) -> None:
    _, pipe, options = family
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, prompt, **options)
    trace = extractor.trace
    # PixArt and Sana give their encoders small letters; no letter is lost on the way.
    assert trace.prompt.strip().lower() == prompt.strip().lower()
    assert [w.text.lower() for w in trace.words] == prompt.lower().split()


@pytest.mark.parametrize("word", [3, None, ["red"], b"red"])
def test_what_is_no_word_is_refused_by_name(word: Any, pipes: dict[str, Any]) -> None:
    pipe, options = pipes["stable_diffusion"], FAMILIES["stable_diffusion"][1]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, **options)
    with pytest.raises(SettingError, match=r"give a word or phrase as text"):
        extractor.trace.word(word)
    for occurrence in ("0", 0.0, [0]):
        with pytest.raises(SettingError, match="occurrence="):
            extractor.trace.word("apple", occurrence=occurrence)


def test_both_normalisations_hold(family: tuple) -> None:
    _, pipe, options = family
    with RealAttentionExtractor(pipe, heads="all") as extractor:
        latents_of(pipe, **options)
    trace = extractor.trace
    for layer in trace.layers:
        for step in trace.steps:
            sums = trace.attention(layer=layer, step=step).sum(axis=2)
            assert np.abs(sums - 1).max() < 5e-5
            maps = trace.heat_map(layer=layer, step=step)
            assert np.abs(maps.sum(axis=(-2, -1)) - 1).max() < 5e-5

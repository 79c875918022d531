"""Which rows of the guidance batch are the prompt's, where embeddings alone do not tell."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import FAMILIES, latents_of, pixart, sana, sdxl, stable_diffusion

from scribblediffusion.attention.extractor import RealAttentionExtractor
from scribblediffusion.attention.trace import AttentionTrace

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return stable_diffusion()


def by_embeddings(pipe: Any, positive: Any, negative: Any, **options: Any) -> Any:
    embeds = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    return latents_of(pipe, None, **embeds, **(SIZE | options))


def beforehand(pipe: Any, positive: Any, negative: Any) -> AttentionTrace:
    """The same embeddings, made outside of the context."""
    with RealAttentionExtractor(pipe) as extractor:
        by_embeddings(pipe, positive, negative)
    return extractor.trace


def test_weighted_embeddings_made_inside_the_context_are_full(pipe: Any) -> None:
    with RealAttentionExtractor(pipe) as extractor:
        given = pipe.encode_prompt("a red apple", "cpu", 1, True, negative_prompt="blue pie")
        positive, negative = 1.3 * given[0], given[1]
        by_embeddings(pipe, positive, negative)
    trace = extractor.trace
    assert trace.batch == 1
    assert trace.audit.passed
    assert np.array_equal(trace.attention(), beforehand(pipe, positive, negative).attention())


@pytest.mark.parametrize("weight", [1.0, 1.3])
@pytest.mark.parametrize("texts", [("a red apple", "blue pie"), ("blue pie", "a red apple")])
def test_encoders_called_by_hand_in_any_order(pipe: Any, texts: Any, weight: float) -> None:
    """As prompt weighting libraries do: the encoder is called outside of the pipeline."""

    def encode(text: str) -> torch.Tensor:
        ids = pipe.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")
        return pipe.text_encoder(ids["input_ids"])[0].detach()

    with RealAttentionExtractor(pipe) as extractor:
        made = {text: encode(text) for text in texts}
        positive, negative = weight * made["a red apple"], made["blue pie"]
        by_embeddings(pipe, positive, negative)
    trace = extractor.trace
    assert trace.batch == 1
    expected = beforehand(pipe, positive, negative)
    for key in (1, 2, 3):
        assert np.array_equal(trace.token(key), expected.token(key))
    if weight == 1:
        assert [word.text for word in trace.words] == ["a", "red", "apple"]


def test_two_prompts_encoded_one_by_one(pipe: Any) -> None:
    """Both calls had their text as the prompt: only guidance says that one is not."""
    with RealAttentionExtractor(pipe) as extractor:
        negative = pipe.encode_prompt("blue pie", "cpu", 1, False)[0]
        positive = pipe.encode_prompt("a red apple", "cpu", 1, False)[0]
        by_embeddings(pipe, positive, negative)
    assert extractor.trace.batch == 1
    assert [word.text for word in extractor.trace.words] == ["a", "red", "apple"]


def test_a_negative_prompt_of_zeros_is_told_by_comparing() -> None:
    pipe = sdxl()
    for branch, rows in (("full", 1), ("unconditional", 1)):
        with RealAttentionExtractor(pipe, branch=branch) as extractor:
            latents_of(pipe, **SIZE)
        assert extractor.trace.batch == rows
        assert bool(extractor.trace.words) == (branch == "full")


# ── PixArt has no property that says whether it guides ───────────────────────────────────────


@pytest.mark.parametrize(("scale", "rows"), [(4.5, 1), (1.0, 1)])
def test_pixart_with_embeddings_made_beforehand(scale: float, rows: int) -> None:
    pipe, options = pixart(), FAMILIES["pixart"][1]
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds",
             "negative_prompt_attention_mask")  # fmt: skip
    with torch.no_grad():
        made = pipe.encode_prompt("a red apple", negative_prompt="pie", clean_caption=False)
    given = dict(zip(names, made, strict=True))
    call = {"negative_prompt": None, "guidance_scale": scale} | options | given
    seen: list[torch.Tensor] = []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["encoder_hidden_states"]), with_kwargs=True
    )
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, None, **call)
    hook.remove()
    assert seen[0].shape[0] == (2 if scale > 1 else 1)
    assert extractor.trace.batch == rows
    assert extractor.trace.audit.passed


def test_pixart_with_the_same_prompt_on_both_sides() -> None:
    pipe, options = pixart(), FAMILIES["pixart"][1]
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red", negative_prompt="a red", **options)
    assert extractor.trace.batch == 1
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, ["a red", "apple"], negative_prompt=["a red", "red"], **options)
    assert [prompt.text for prompt in extractor.trace.prompts] == ["a red", "apple"]


# ── Sana instructs its language model ────────────────────────────────────────────────────────


@pytest.mark.parametrize("negative", ["", "apple"])
def test_the_prompt_is_what_the_person_gave_not_the_instruction(negative: str) -> None:
    pipe, options = sana(), FAMILIES["sana"][1]
    instruction = ["Be red, red apple:", "a red ape -> a red apple.", "User Prompt: "]
    options = options | {"complex_human_instruction": instruction, "negative_prompt": negative}
    expected = latents_of(pipe, "A Red apple, red", **options)
    with RealAttentionExtractor(pipe) as extractor:
        assert torch.equal(latents_of(pipe, "A Red apple, red", **options), expected)
    trace = extractor.trace
    assert trace.prompt == "a red apple, red"  # as Sana made it ready
    assert [word.text for word in trace.words] == ["a", "red", "apple", ",", "red"]
    assert [word.occurrence for word in trace.words] == [0, 0, 0, 0, 1]
    assert trace.audit.passed
    named = {token.key: token.text for token in trace.tokens}
    assert [named[key].strip() for key in trace.words[1].keys] == ["red"]
    first, second = (trace.word("red", occurrence=n) for n in (0, 1))
    assert not np.array_equal(first, second)
    with RealAttentionExtractor(pipe, branch="unconditional") as extractor:
        latents_of(pipe, "A Red apple, red", **options)
    assert extractor.trace.prompt == negative


def test_a_second_prompt_that_ends_the_first_is_no_instruction() -> None:
    pipe = sdxl()
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red apple", prompt_2="apple", negative_prompt="red apple", **SIZE)
    assert extractor.trace.prompt == "a red apple"
    assert [word.text for word in extractor.trace.words] == ["a", "red", "apple"]

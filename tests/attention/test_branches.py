"""Which rows of the guidance batch are the prompt's, where embeddings alone do not tell."""

from typing import Any

import numpy as np
import pytest
import torch
from scribbles import small_pipeline
from tiny_pipelines import FAMILIES, flux, latents_of, pixart, sana, sdxl, stable_diffusion

from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import NoHeatMapError, SeveralRunsError, UnknownWordError

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


@pytest.mark.parametrize(
    ("prompts", "negatives"),
    [
        ("a red apple", "a red apple"),
        ("", ""),
        (["a red apple", "blue pie"], ["x", "blue pie"]),
        (["a red apple", "blue pie"], ["blue pie", "x"]),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_a_negative_prompt_that_is_a_prompt_takes_no_picture_away(
    pipe: Any, prompts: Any, negatives: Any, scale: float
) -> None:
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, prompts, negative_prompt=negatives, guidance_scale=scale, **SIZE)
    texts = [prompts] if isinstance(prompts, str) else prompts
    assert [prompt.text for prompt in extractor.trace.prompts] == texts
    assert extractor.trace.audit.passed


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_flux_with_the_same_prompt_on_both_sides(scale: float) -> None:
    pipe, options = flux(), FAMILIES["flux"][1]
    same = options | {"negative_prompt": "a red apple", "true_cfg_scale": scale}
    with RealAttentionExtractor(pipe) as extractor:
        latents_of(pipe, "a red apple", **same)
    trace = extractor.trace
    assert (trace.prompt, trace.batch, len(trace.steps)) == ("a red apple", 1, 2)
    assert trace.audit.passed


# ── a prompt that changes while its run goes on ──────────────────────────────────────────────


def switched(pipe: Any, embeds: Any, at: Any, *, in_place: bool = False) -> torch.Tensor:
    """Latents of four steps that begin with "a red apple"; `embeds()` come after steps `at`."""
    own: list[torch.Tensor] = []

    def swap(pipe: Any, step: int, t: Any, values: dict) -> dict:
        own.append(values["prompt_embeds"])
        given = embeds() if step in at else own[0]
        if in_place:
            values["prompt_embeds"].copy_(given.clone())
        return values if in_place else values | {"prompt_embeds": given}

    call = {"callback_on_step_end": swap, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    return latents_of(pipe, "a red apple", steps=4, **call, **SIZE)


def guided(pipe: Any, text: str) -> torch.Tensor:
    positive, negative = pipe.encode_prompt(text, "cpu", 1, True)
    return torch.cat([negative, positive])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_prompt_changed_in_mid_run_begins_a_trace_of_its_own(
    pipe: Any, inside: bool, in_place: bool
) -> None:
    made = guided(pipe, "blue pie zebra")
    embeds = (lambda: guided(pipe, "blue pie zebra")) if inside else (lambda: made)
    expected = switched(pipe, embeds, {1, 2, 3}, in_place=in_place)
    extractor = RealAttentionExtractor(pipe)
    with pytest.warns(CaptureWarning, match="prompt changed"), extractor:
        assert torch.equal(switched(pipe, embeds, {1, 2, 3}, in_place=in_place), expected)
    before, after = extractor.traces
    assert [word.text for word in before.words] == ["a", "red", "apple"]
    assert [word.text for word in after.words] == (["blue", "pie", "zebra"] if inside else [])
    assert [[step.index for step in trace.steps] for trace in (before, after)] == [[0, 1], [2, 3]]
    assert (before.complete, after.complete) == (False, True)
    assert before.audit.passed
    assert after.audit.passed
    with pytest.raises(UnknownWordError):
        after.word("apple")
    with pytest.raises(SeveralRunsError, match="take one of traces"):
        _ = extractor.trace


def test_a_prompt_that_comes_and_goes_has_a_trace_each_time(pipe: Any) -> None:
    made = guided(pipe, "blue pie zebra")
    extractor = RealAttentionExtractor(pipe, steps=[0, 1, -1])
    with pytest.warns(CaptureWarning, match="prompt changed"), extractor:
        switched(pipe, lambda: made, {0, 2})
    traces = extractor.traces
    assert [trace.prompt for trace in traces] == ["a red apple", "", "a red apple", ""]
    assert [[step.index for step in trace.steps] for trace in traces] == [[0], [1], [], [3]]
    assert [trace.complete for trace in traces] == [False, False, False, True]


def test_the_same_prompt_encoded_again_is_no_change(pipe: Any) -> None:
    with RealAttentionExtractor(pipe) as extractor:
        switched(pipe, lambda: guided(pipe, "a red apple"), {1})
    assert [step.index for step in extractor.trace.steps] == [0, 1, 2, 3]
    assert extractor.trace.complete


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


# ── ours: without words the rows hold the empty prompt ───────────────────────────────────────


INK = np.full((256, 256), 255, np.uint8)
INK[60:190, 60:66] = 0


@pytest.mark.parametrize("sketches", [[None, INK], [INK, None]])
def test_the_sketch_of_a_trace_is_that_of_its_first_picture(sketches: Any) -> None:
    pipe = small_pipeline()
    with RealAttentionExtractor(pipe) as extractor:
        pipe(["an apple", "a pie"], sketches, num_inference_steps=1, output_type="np")
    trace = extractor.trace
    assert trace.picture is trace.pictures[0]
    assert (trace.sketch is None) == (sketches[0] is None)


@pytest.mark.parametrize("branch", ["unconditional", "sketch_only"])
def test_a_branch_of_the_shipped_model_has_the_prompt_that_its_rows_hold(branch: Any) -> None:
    pipe = small_pipeline()
    with RealAttentionExtractor(pipe, branch=branch) as extractor:
        pipe(["crimson apple", "a pie"], INK, num_inference_steps=1, output_type="latent")
    trace = extractor.trace
    assert [(p.text, p.words) for p in trace.prompts] == [("", ())] * 2
    assert [token.text for token in trace.tokens if token.stream == "text"] == ["[CLS]", "[SEP]"]
    with pytest.raises(UnknownWordError, match=f"none.*{branch}.*branch='full'"):
        trace.word("crimson")
    # A region with ink is heard where the branch has the sketch, and has no map where it is masked.
    shares = {share.name: share.share for share in trace.at(63, 100)}
    assert "crimson" not in shares
    assert (shares["8×8 (3, 1)"] > 0) == (branch == "sketch_only")
    if branch == "unconditional":
        assert set(shares.values()) == {0.0}
        with pytest.raises(NoHeatMapError, match=r"region 8×8 \(3, 1\).*masked out"):
            trace.region(3, 1)
    assert trace.audit.passed


NONE = {"guidance_scale": 1.0, "sketch_guidance_scale": 1.0}


@pytest.mark.parametrize(
    ("branch", "sketches", "settings"),
    [
        ("full", [INK, INK], {}),
        ("full", [None, INK], {}),
        ("full", [INK, None], {"num_images_per_prompt": 2}),
        ("full", [None, None], {}),
        ("full", [INK, INK], NONE),
        ("full", [None, INK], NONE),
        ("full", [None, None], NONE),
        ("full", [INK, None], NONE | {"guidance_scale": 3.0}),
        ("full", [INK, None], NONE | {"sketch_guidance_scale": 2.0}),
        ("sketch_only", [INK, INK], {}),
        ("sketch_only", [None, INK], {"num_images_per_prompt": 2}),
        ("sketch_only", [INK, None], NONE | {"guidance_scale": 3.0}),
    ],
)
def test_batches_of_the_shipped_pipeline(branch: Any, sketches: list, settings: dict) -> None:
    """The same bits as without capture, a proof, and each picture's own sketch or none."""
    pipe = small_pipeline()

    def draw() -> np.ndarray:
        own = torch.Generator().manual_seed(3)
        options = {"num_inference_steps": 2, "output_type": "np"} | settings
        return pipe(["an apple", "a pie"], sketches, generator=own, **options).images

    expected = draw()
    with RealAttentionExtractor(pipe, branch=branch, tokens="all", heads="all") as extractor:
        assert np.array_equal(draw(), expected)
    trace = extractor.trace
    assert trace.audit.passed, str(trace.audit)
    assert np.array_equal(trace.pictures, expected)
    each = settings.get("num_images_per_prompt", 1)
    assert trace.batch == 2 * each
    for picture in range(trace.batch):
        heard = trace.stream("sketch", picture=picture).any()
        assert heard == (sketches[picture // each] is not None)


def test_the_memory_limit_is_for_attention_and_previews_come_on_top() -> None:
    pipe = small_pipeline()

    def capture(**limits: Any) -> RealAttentionExtractor:
        with RealAttentionExtractor(pipe, **limits) as extractor:
            pipe(["an apple", "a pie"], INK, num_inference_steps=3, output_type="np")
        return extractor

    whole = capture().trace
    limit = whole.nbytes // 4
    with pytest.warns(CaptureWarning, match="coarser"):
        limited = capture(memory_limit=limit)
    trace = limited.trace
    assert trace.nbytes <= limited.forecast <= limit
    assert [p.nbytes for p in trace.pictures] == [256 * 256 * 3] * 2
    assert trace.previews.shape == whole.previews.shape == (3, 256, 256, 3)
    assert capture(previews=False).trace.previews is None

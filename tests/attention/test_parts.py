"""The parts by themselves: folding, budgets, schedules, layouts, branches."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scribblediffusion.attention import budget, folding, schedule
from scribblediffusion.attention.frames import Wish
from scribblediffusion.attention.layout import KeyLayout, prompt_record
from scribblediffusion.attention.naming import find
from scribblediffusion.attention.records import Prompt, Step, Word
from scribblediffusion.errors import CaptureError, UnknownWordError
from scribblediffusion.model import unet as shipped
from scribblediffusion.prompt import Piece, Reading, ReadWord
from scribblediffusion.sketch import REGIONS


def tensors(batch: int, heads: int, places: int, keys: int, width: int) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(places * 31 + keys)
    make = lambda n: torch.randn(batch, heads, n, width, generator=generator)  # noqa: E731
    return make(places), make(keys), make(keys)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.integers(2, 9), st.booleans())
def test_folding_keeps_all_that_there_is(
    batch: int, heads: int, places: int, keys: int, every: bool
) -> None:
    q, k, v = tensors(batch, heads, places, keys, 4)
    kept = folding.Kept(torch.tensor([1]), [torch.tensor([0, *range(2, keys)])])
    record, mixed = folding.fold(q, k, 0.5, None, kept, every_head=every, v=v)
    assert record.shape == (batch, heads if every else 1, 2, places)
    assert torch.allclose(record.sum(2), torch.ones(()), atol=1e-5)
    p = torch.softmax(q.double() @ k.double().transpose(-1, -2) / 2, -1)
    mine = p if every else p.mean(1, keepdim=True)
    assert torch.allclose(record[:, :, 0].double(), mine[..., 1], atol=1e-6)
    assert mixed is not None
    assert torch.allclose(mixed.double(), p @ v.double(), atol=1e-5)


def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = tensors(2, 2, 23, 7, 4)
    kept = folding.Kept(torch.arange(7))
    mask = torch.zeros(2, 1, 23, 7)
    mask[:, :, 5:, 3] = -torch.inf
    whole, mixed = folding.fold(q, k, 1.0, mask, kept, every_head=True, v=v)
    monkeypatch.setattr(folding, "_FEWEST", 4)
    monkeypatch.setattr(folding, "PIECE", 2 * 2 * 7 * 4)
    pieces, mixed_in_pieces = folding.fold(q, k, 1.0, mask, kept, every_head=True, v=v)
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert torch.allclose(mixed, mixed_in_pieces, atol=1e-6)
    assert not pieces[:, :, 3, 5:].any()
    assert pieces[:, :, 3, :5].all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 2), st.lists(st.booleans(), min_size=7, max_size=14), st.booleans())
def test_keys_without_weight_are_left_out_and_nothing_else_changes(
    batch: int, hidden: list[bool], every: bool
) -> None:
    """Bool masks, diffusers' −10000 and −inf; single columns in any order, groups and values."""
    q, k, v = tensors(batch, 2, 9, 7, 4)
    dark = torch.tensor(hidden[: 7 * batch] + [False] * (7 * batch - len(hidden))).view(batch, 7)
    kept = folding.Kept(torch.tensor([5, 0, 3]), [slice(1, 3), torch.tensor([4, 6])])
    p = torch.softmax(
        (q @ k.transpose(-1, -2) / 2).masked_fill(dark[:, None, None], -torch.inf), -1
    )
    mine = (p if every else p.mean(1, keepdim=True)).transpose(-1, -2)
    groups = [mine[:, :, 1:3].sum(2), mine[:, :, [4, 6]].sum(2)]
    expected = torch.cat([mine[:, :, [5, 0, 3]], torch.stack(groups, 2)], 2)
    biases = torch.where(dark, -10000.0, 0.0), torch.where(dark, -torch.inf, 0.0), ~dark
    for mask in biases:
        if bool(dark.all(-1).any()):
            continue  # a row that sees nothing is nobody's to define
        record, mixed = folding.fold(q, k, 0.5, mask[:, None, None], kept, every_head=every, v=v)
        assert mixed is not None
        assert torch.allclose(record, expected, atol=1e-6, rtol=0)
        assert torch.allclose(mixed, p @ v, atol=1e-5)
        assert not record[expected == 0].any()


@pytest.mark.parametrize(
    "shape", [(2, 7), (2, 1, 7), (6, 1, 7), (2, 5, 7), (6, 5, 7), (2, 3, 5, 7), (1, 1, 1, 7)]
)
@pytest.mark.parametrize("kind", ["bool", "minus_10000", "minus_infinity"])
def test_masks_of_every_shape_hide_exactly(shape: tuple[int, ...], kind: str) -> None:
    seen = torch.ones(shape, dtype=torch.bool)
    seen[..., 2] = False
    low = -10000.0 if kind == "minus_10000" else -torch.inf
    mask = seen if kind == "bool" else torch.zeros(shape).masked_fill(~seen, low)
    q, k, _ = tensors(2, 3, 5, 7, 4)
    p = folding.weights(q, k, folding.as_mask(mask, 2, 3), torch.empty(2, 3, 7, 5))
    assert not p[:, :, 2].any()
    assert torch.allclose(p.sum(2), torch.ones(()), atol=1e-6)


@pytest.mark.parametrize("places", [1, 9])
@pytest.mark.parametrize("kind", ["bool", "minus_infinity"])
def test_a_place_that_sees_no_key_has_zeros_and_no_nan(kind: str, places: int) -> None:
    q, k, v = tensors(2, 2, 9, 7, 4)
    seen = torch.ones(2, 1, places, 7, dtype=torch.bool)
    seen[1, :, 0] = False
    mask = seen if kind == "bool" else torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    kept = folding.Kept(torch.tensor([0, 2]), [torch.tensor([1, 3, 4, 5, 6])])
    record, mixed = folding.fold(q, k, 0.5, mask, kept, every_head=True, v=v)
    sums = record.sum(2)
    blind = slice(None) if places == 1 else slice(0, 1)
    assert not sums[1, :, blind].any()
    assert torch.allclose(sums[0], torch.ones(()), atol=1e-6)
    assert torch.allclose(sums[1, :, 1:], torch.full((), float(places > 1)), atol=1e-6)
    real = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=0.5)
    assert torch.allclose(mixed, real, atol=1e-5)


def test_what_one_mask_leaves_is_not_what_the_next_one_does() -> None:
    """Kept columns remember the last mask: not its memory, not its kind, and only the last."""
    q, k, _ = tensors(1, 2, 9, 7, 4)
    kept = folding.Kept(torch.tensor([5, 0, 3]))
    mask = torch.zeros(1, 1, 1, 7)

    def expected(hidden: list[int]) -> torch.Tensor:
        products = q @ k.transpose(-1, -2) / 2
        products[..., hidden] = -torch.inf
        return torch.softmax(products, -1).mean(1, keepdim=True).transpose(-1, -2)[:, :, [5, 0, 3]]

    for hidden in ([1, 5], [1, 5], [0, 2], [], [3]):
        mask.zero_()[..., hidden] = -10000.0
        for same in (mask, mask == 0):
            record, _ = folding.fold(q, k, 0.5, same, kept, every_head=False)
            assert torch.allclose(record, expected(hidden), atol=1e-6, rtol=0)


def test_a_bias_of_bfloat16_leaves_keys_out() -> None:
    """Its −10000 is −9984: too far below 0 all the same."""
    bias = torch.where(torch.arange(7) < 3, 0.0, -10000.0).to(torch.bfloat16)
    assert bias.min() == -9984
    left = folding.Kept(slice(0, 7)).under(folding.as_mask(bias[None], 1, 2))
    assert left is not None
    assert left.seen.tolist() == [0, 1, 2]
    assert shipped.NO_WEIGHT == folding.NO_WEIGHT


def test_plans_give_up_heads_then_resolution_then_steps() -> None:
    plan = budget.Plan(True, {"a": (16, 12), "b": (8, 6)}, {"a": 8, "b": 8}, 1, 10, calls=20)
    whole = plan.forecast()
    assert whole == 4 * 10 * 8 * (192 + 48) * 20
    assert budget.fit(plan, whole) == plan
    mean = budget.fit(plan, whole // 4)
    assert (mean.every_head, mean.grids) == (False, plan.grids)
    coarse = budget.fit(plan, whole // 12)
    assert coarse.grids == {"a": (8, 6), "b": (8, 6)}
    few = budget.fit(plan, whole // 500)
    assert few.stride > 1
    assert few.forecast() <= whole // 500
    assert [s.split()[0] for s in few.thinned] == ["the", "layers", "one"]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4_000_000), st.integers(1, 60))
def test_a_forecast_is_kept_or_nothing_is_left_to_give(room: int, calls: int) -> None:
    plan = budget.Plan(True, {"a": (32, 32), "b": (5, 7)}, {"a": 8, "b": 2}, 2, 30, calls)
    fitted = budget.fit(plan, room)
    assert fitted.forecast() <= room or fitted.thinner() is None


def test_thinned_records_keep_their_sums() -> None:
    record = np.random.default_rng(0).random((2, 3, 4, 15 * 9), dtype=np.float32)
    record /= record.sum(2, keepdims=True)
    thin = budget.thin(record, (15, 9), (8, 5), mean=True)
    assert thin.shape == (2, 1, 4, 40)
    assert np.allclose(thin.sum(2), 1, atol=1e-5)


def test_wishes_for_steps() -> None:
    wish = lambda steps: Wish(False, False, steps).among(5)  # noqa: E731
    assert wish(None) == [0, 1, 2, 3, 4]
    assert wish(frozenset({0, -1})) == [0, 4]
    assert wish(slice(None, None, 2)) == [0, 2, 4]
    assert wish(slice(-2, None)) == [3, 4]


def test_no_scheduler_no_noise() -> None:
    place = schedule.position(None, 3)
    step = schedule.describe(None, place, schedule.position(None, 0), schedule.Given(7.0))
    assert step == Step(3, 0, 7.0, None, None)
    assert schedule.is_last(None, place)
    assert schedule.planned(None, place) is None


def reading(text: str, cut: str = "") -> Reading:
    words = text.split()
    pieces = [Piece("<s>", 0, special=True), *(Piece(w, i + 1) for i, w in enumerate(words))]
    read = [
        ReadWord(w, () if w == cut else (i + 1,), 0, 2 * i, whole=w != cut)
        for i, w in enumerate(words)
    ]
    return Reading(text, tuple(pieces), tuple(read))


def test_two_tokenizers_make_one_prompt() -> None:
    pair = [(reading("a b c", cut="c"), range(4)), (reading("a b c"), range(10, 14))]
    prompt = prompt_record(pair)
    assert prompt.words == (
        Word("a", (1, 11)),
        Word("b", (2, 12), start=2),
        Word("c", (13,), start=4),
    )
    assert prompt.truncated == ()  # the second encoder saw it
    assert prompt_record(pair[:1]).truncated == ("c",)


def test_what_one_encoder_cuts_off_is_no_other_prompt() -> None:
    pair = [(reading("a b c", cut="c"), range(4)), (reading("a b c"), range(10, 14))]
    assert prompt_record(pair).texts == prompt_record(pair[::-1]).texts == ()
    turned = [pair[0], (reading("a b d c"), range(10, 15))]
    assert [w.text for w in prompt_record(turned).words] == ["a", "b", "d", "c"]
    assert prompt_record(turned).texts == ()


def test_a_phrase_ends_where_its_prompt_was_cut_off() -> None:
    """The last word that one encoder saw is no neighbour of a word that only another one saw."""
    pair = [(reading("a b c", cut="c"), range(4)), (reading("c d"), range(10, 13))]
    prompt = prompt_record(pair)
    assert prompt.texts == ((0, 1), (2, 3))
    assert find("c d", prompt) == [(11, 12)]
    for nowhere in ("b c", "a b c"):
        with pytest.raises(UnknownWordError):
            find(nowhere, prompt)


def test_a_second_prompt_on_the_same_keys_is_told_where_it_was_cut_off() -> None:
    own, beside = (reading("a b"), range(3)), (reading("b c", cut="c"), range(3))
    prompt = prompt_record([own], beside=[beside])
    assert prompt.words == (Word("a", (1,)), Word("b", (2, 1), start=2))
    assert prompt.truncated == ("c",)
    assert len(prompt.tokens) == 3
    with pytest.raises(UnknownWordError, match="cut off"):
        find("c", prompt)


def test_a_layout_of_text_and_sketch() -> None:
    layout = KeyLayout.of_text_and_sketch(
        {"unconditional": [reading("")], "full": [reading("red apple")]}, regions=REGIONS
    )
    assert layout.streams == {"text": range(77), "sketch": range(77, 154)}
    assert layout.regions[REGIONS[5]] == 82
    empty, full = (layout.branches[name][0] for name in ("unconditional", "full"))
    assert full.tokens[-1].key == empty.tokens[-1].key == 153
    assert full.words == (Word("red", (1,)), Word("apple", (2,), start=2))
    assert empty.words == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": {"text": range(3), "sketch": range(4, 6)}},
        {"streams": {"text": range(1, 3)}},
        {"streams": {"text": range(3)}, "branches": {"unconditional": (Prompt(),)}},
        {"streams": {"text": range(3)}, "branches": {"full": (Prompt(),), "sketch_only": ()}},
    ],
)
def test_layouts_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CaptureError, match="key layout"):
        KeyLayout(**({"branches": {"full": (Prompt(),)}} | wrong))

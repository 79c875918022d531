import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from painted import make_trace
from PIL import Image
from short_runs import live_steps, short_run

from scribblediffusion.analysis.balance import weigh_streams
from scribblediffusion.analysis.difference import compare
from scribblediffusion.analysis.listening import ink_of
from scribblediffusion.analysis.regions import describe_regions
from scribblediffusion.attention.trace import AttentionTrace, resize
from scribblediffusion.errors import NotRecordedError
from scribblediffusion.web.payload import choices, pack, pack_live, pack_maps, short_name


@pytest.fixture(scope="module")
def real():
    return short_run("all")


@pytest.fixture(scope="module")
def packed(real):
    return pack(real, run="one")


def opened(block, columns):
    """What the browser makes of a block: raw values `[steps, columns, H, W]`, and the masses."""
    rows, cols = block["grid"]
    codes = np.frombuffer(base64.b64decode(block["codes"]), np.uint8)
    top, mass = (np.frombuffer(base64.b64decode(block[k]), "<f4") for k in ("top", "mass"))
    top = top.reshape(-1, columns)
    raw = codes.reshape(*top.shape, rows, cols) / 255 * top[..., None, None]
    return raw, mass.reshape(-1, columns)


def picture_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("layer", [None, 0, 3])
@pytest.mark.parametrize("head", [None, 5])
def test_maps_are_within_the_stated_error(real, layer, head):
    name = None if layer is None else real.layers[layer].name
    block = pack_maps(real, name, head)
    raw, mass = opened(block, len(real.columns["condition"]))
    for position, step in enumerate(real.steps):
        true = real.attention(layer=name, step=step.index)[0]
        true = true.mean(axis=0) if head is None else true[head]
        assert np.abs(raw[position] - true).max() <= block["error"] * 1.001
        np.testing.assert_allclose(mass[position], true.mean(axis=(1, 2)), rtol=1e-4, atol=1e-7)
    assert 0 < block["error"] < 1 / 509


@pytest.mark.parametrize("step", [None, 0, 2])
@pytest.mark.parametrize("layer", [None, 2])
def test_a_place_ranks_as_in_python(real, packed, step, layer):
    name = None if layer is None else real.layers[layer].name
    block = packed["blocks"][0] if name is None else pack_maps(real, name)
    raw, _ = opened(block, len(packed["columns"]))
    rows, cols = block["grid"]
    for x, y in ((10, 10), (80, 75), (174, 178), (255, 0)):
        values = raw[:, :, int(y * rows / 256), int(x * cols / 256)]
        values = values.mean(axis=0) if step is None else values[step]
        named = [(w["name"], w["columns"]) for w in packed["words"]]
        named += [(r["name"], [r["column"]]) for r in packed["regions"]]
        ours = {n: values[c].sum() for n, c in named}
        truth = real.at(x, y, step=step, layer=name)
        assert set(ours) == {s.name for s in truth}
        for share in truth:
            assert ours[share.name] == pytest.approx(share.share, abs=block["error"] * 1.001)


def test_words_are_where_they_are_in_the_prompt(packed, real):
    assert [w["text"] for w in packed["words"]] == [
        "a",
        "red",
        "apple",
        "above",
        "a",
        "blue",
        "kite",
    ]
    for word in packed["words"]:
        assert real.prompt[word["start"] :].startswith(word["text"])
        assert word["columns"]
    assert [w["name"] for w in packed["words"]][::4] == ["a (1)", "a (2)"]
    assert {s["name"] for s in packed["specials"]} == {"[CLS]", "[SEP]"}
    every = [c for w in packed["words"] for c in w["columns"]]
    assert len(set(every)) == len(every)


def test_positions_count_as_the_browser_does():
    tokens = ["[CLS]", "🍎", "red", "[SEP]"]
    weights = np.full((1, 1, 1, 4, 2, 2), 0.25, np.float32)
    trace = AttentionTrace.from_arrays({"a": weights}, tokens=tokens, prompt="🍎 red")
    starts = {w["text"]: w["start"] for w in pack(trace)["words"]}
    assert starts["red"] == 3  # the apple is two UTF-16 units


def test_regions_have_their_pixels_and_what_is_drawn_there(packed, real):
    regions = packed["regions"]
    assert [r["at"][0] for r in regions] == [8] * 64 + [3] * 9 + [2] * 4
    for level in (8, 3, 2):
        covered = np.zeros((256, 256), int)
        for r in regions:
            if r["at"][0] == level:
                left, top, right, bottom = r["box"]
                covered[top:bottom, left:right] += 1
        assert (covered == 1).all()
    told = [str(d) for d in describe_regions(ink_of(real))]
    assert [r["told"] for r in regions] == told


def test_stream_shares_sum_to_one_and_agree_with_the_analysis(packed, real):
    _, mass = opened(packed["blocks"][0], len(packed["columns"]))
    np.testing.assert_allclose(mass.sum(axis=1), 1, atol=1e-5)
    for name, shares in weigh_streams(real).by_step.items():
        own = [i for i, s in enumerate(packed["columns"]) if packed["streams"][s] == name]
        np.testing.assert_allclose(mass[:, own].sum(axis=1), shares, atol=1e-5)


def test_it_is_json_and_compact(packed):
    text = json.dumps(packed, allow_nan=False)
    assert json.loads(text) == packed
    codes = 4 * len(packed["columns"]) * 32 * 32
    assert len(text) < codes * 4 / 3 + 300_000


def test_pictures_and_steps(packed, real):
    np.testing.assert_array_equal(picture_of(packed["picture"]), real.picture)
    np.testing.assert_array_equal(picture_of(packed["sketch"]), real.sketch)
    assert [s["label"] for s in packed["steps"]] == [
        f"Noise remaining: {n}%" for n in (100, 75, 50, 25)
    ]
    for step, preview in zip(packed["steps"], real.previews, strict=True):
        shown = picture_of(step["preview"]).astype(int)
        assert np.abs(shown - preview).mean() < 4  # JPEG


def test_layers_and_heads_are_those_of_the_trace(packed, real):
    assert [x["name"] for x in packed["layers"]] == [x.name for x in real.layers]
    assert packed["heads"] == "all"
    heads = sum(layer.heads for layer in real.layers)
    assert len(choices(real)) == 1 + len(real.layers) + 8 + heads
    averaged = short_run("mean")
    assert pack(averaged)["heads"] == "mean"
    assert choices(averaged) == [(None, None), *((x.name, None) for x in averaged.layers)]
    with pytest.raises(NotRecordedError, match='heads="all"'):
        pack_maps(averaged, None, 0)
    with pytest.raises(NotRecordedError, match="head 8"):
        pack_maps(real, real.layers[0].name, 8)
    with pytest.raises(NotRecordedError, match="no_such_layer"):
        pack_maps(real, "no_such_layer")


def test_inline_blocks_stay_within_their_room(real):
    room = 1_000_000
    blocks = pack(real, inline=room)["blocks"][1:]
    assert blocks
    assert sum(len(base64.b64decode(b["codes"])) for b in blocks) <= room
    assert len(pack(real)["blocks"]) == 1


def test_the_audit_comes_along(packed, real):
    assert packed["audit"] == {"line": str(real.audit), "passed": True}
    assert "44 of 44 records" in packed["audit"]["line"] or real.audit.produced != 44
    assert pack(make_trace(steps=2))["audit"] is None


def test_a_step_without_a_record_is_a_gap_and_not_a_zero(real):
    name = real.layers[0].name
    records = {k: v for k, v in real.records.items() if k != (1, 0)}
    holed = dataclasses.replace(real, records=records)
    block = pack_maps(holed, name)
    assert block["gaps"] == [1]
    assert pack_maps(holed, real.layers[1].name)["gaps"] == []
    none = dataclasses.replace(real, records={k: v for k, v in records.items() if k[1] != 0})
    with pytest.raises(NotRecordedError):
        pack_maps(none, name)


def test_a_bare_trace_is_shown_as_far_as_it_goes(bare_trace):
    packed = pack(bare_trace)
    assert packed["picture"] is None
    assert packed["sketch"] is None
    assert [s["preview"] for s in packed["steps"]] == [None, None]
    assert all(r["told"] is None for r in packed["regions"])
    plain = AttentionTrace.from_arrays({"a": np.full((1, 1, 1, 3, 2, 4), 1 / 3)})
    packed = pack(plain)
    assert packed["regions"] == []
    assert packed["words"] == []
    assert packed["lead"] is None
    assert packed["grid"] == [2, 4]


def test_a_stopped_run_says_where(real):
    stopped = dataclasses.replace(real, complete=False, steps=real.steps[:2])
    said = pack(stopped)["stopped"]
    assert said == "Stopped after step 2 of 4, with 75% noise remaining at its last step"
    assert pack(real)["stopped"] == ""


def test_live_frames_have_one_step_each_and_the_same_shape(real, packed):
    for position, latest in enumerate(live_steps(real)):
        frame = pack_live(latest, run="r", count=4)["live"]
        assert set(frame) == set(packed)
        assert [s["index"] for s in frame["steps"]] == [position]
        assert frame["steps"][0]["preview"] is not None
        one, whole = frame["blocks"][0], packed["blocks"][0]
        raw, _ = opened(one, len(frame["columns"]))
        true, _ = opened(whole, len(frame["columns"]))
        np.testing.assert_allclose(raw[0], true[position], atol=1e-6)
        assert len(json.dumps(frame)) < 200_000


def test_the_leading_word_is_the_most_pointed(real, packed):
    peaks = [real.word(w).max() * 1024 for w in real.words]
    assert packed["lead"] == int(np.argmax(peaks))


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn2", "up 1.0 attn2"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2", "mid 0 attn2"),
        ("single_transformer_blocks.3.attn", "single_transformer 3 attn"),
        ("layer", "layer"),
    ],
)
def test_short_names(name, short):
    assert short_name(name).replace("mid.0", "mid 0") == short


# ── two runs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pair():
    return short_run("all"), short_run("mean", "a apple above a blue kite")


def test_a_comparison_has_the_numbers_of_the_analysis(pair):
    from scribblediffusion.web.comparison import pack_comparison

    packed, found = pack_comparison(*pair), compare(*pair)
    json.dumps(packed, allow_nan=False)
    assert [w["name"] for w in packed["words"]] == [w.name for w in found.words]
    for ours, word in zip(packed["words"], found.words, strict=True):
        assert ours["moved"] == word.moved
        for name in ("before", "after"):
            codes = np.frombuffer(base64.b64decode(ours[name]["codes"]), np.uint8)
            heat = codes.reshape(32, 32) / 255 * ours[name]["top"]
            off = np.abs(heat - getattr(word, name) * 1024).max()
            assert off <= ours[name]["top"] / 509
        codes = np.frombuffer(base64.b64decode(ours["change"]["codes"]), np.uint8)
        change = (codes.reshape(32, 32) - 128.0) / 127 * ours["change"]["top"]
        assert np.abs(change - word.change * 1024).max() <= ours["change"]["top"] / 253


def test_a_word_of_one_run_keeps_its_map(pair):
    from scribblediffusion.web.comparison import pack_comparison

    packed = pack_comparison(*pair)
    (red,) = packed["only_a"]
    assert red["name"] == "red"
    codes = np.frombuffer(base64.b64decode(red["map"]["codes"]), np.uint8).reshape(32, 32)
    heat = resize(pair[0].word("red"), 32, 32) * 1024
    assert np.abs(codes / 255 * red["map"]["top"] - heat).max() <= red["map"]["top"] / 500
    assert packed["only_b"] == []


def test_pictures_are_subtracted(pair):
    from scribblediffusion.web.comparison import pack_comparison

    before, after = (t.picture.astype(float) for t in pair)
    mean = np.abs(before - after).mean() / 255
    assert pack_comparison(*pair)["pictures"]["mean"] == pytest.approx(mean, rel=1e-4)
    same = pack_comparison(pair[0], pair[0])
    assert same["pictures"]["mean"] == 0
    assert all(w["moved"] == 0 for w in same["words"])
    bare = dataclasses.replace(pair[0], pictures=())
    assert pack_comparison(bare, pair[1])["pictures"] is None

import dataclasses
import json
import math

import numpy as np
import pytest
from painted import PROMPT
from PIL import Image

from scribblediffusion.analysis.subjects import StepMaps, find_subject
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.sketch import Region


def test_the_account_names_words_regions_shares_and_audit(scribble, trace_file):
    said = scribble("explain", trace_file).out
    for part in ("a red apple above a blue kite", "seed 7", "3 steps", "a (2)", "kite", "[CLS]",
                 "closed shape with four corners", "listened to most at noise", "2:1,1",
                 "share of the attention", "sketch", "audit"):  # fmt: skip
        assert part in said


def test_json_has_the_numbers_of_the_trace(scribble, trace_file, small_trace):
    told = scribble("explain", trace_file, "--format", "json").data
    maps = StepMaps.read(small_trace)
    for entry in told["words"]:
        raw = maps.raw[:, entry["keys"]].sum(axis=1)
        assert entry["share"] == pytest.approx(raw.mean(), rel=1e-3)
    region = next(r for r in told["regions"] if r["region"] == "8:2,3")
    expected = maps.of(find_subject(small_trace, Region(8, 2, 3))).mean()
    assert region["share"] == pytest.approx(expected, rel=1e-3)
    assert region["where"] == "top middle"
    assert len(told["regions"]) == 77
    streams = told["streams"]
    assert streams["text"]["share"] + streams["sketch"]["share"] == pytest.approx(1, abs=1e-3)


def test_one_word_step_by_step(scribble, trace_file):
    said = scribble("explain", trace_file, "--word", "A (2)").out
    assert "a (2)" in said
    assert "kite " not in said.split("\n", 1)[1]
    assert "noise remaining" in said
    assert said.count("%  ") >= 3


def test_one_region(scribble, trace_file):
    told = scribble("explain", trace_file, "--region", "8:2,3", "--format", "json").data
    assert [r["region"] for r in told["regions"]] == ["8:2,3"]
    assert told["words"] == []
    assert "8×8 (2, 3)" in scribble("explain", trace_file, "--region", " 8: 2,3 ").out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--region", "8;2"), "level:row,column"),
        (("--region", "9:0,0"), "levels are 8, 3, 2"),
        (("--region", "2:2,0"), "levels are 8, 3, 2"),
        (("--word", "pear"), "kite"),
        (("--word", "red", "--region", "8:0,0"), "one of the two"),
        (("--format", "bmp"), "bmp"),
        (("--output", "x.bmp"), "end in"),
        (("--output", "nowhere/x.png"), "no folder"),
        (("--format", "gif", "--output", "x.png"), ".gif"),
    ],
)
def test_what_cannot_be_told_is_one_line(refused, trace_file, options, named):
    assert named in refused("explain", trace_file, *options)


def test_a_trace_without_regions_says_so(refused, small_trace, tmp_path):
    path = dataclasses.replace(small_trace, regions={}).save(tmp_path / "other.safetensors")
    assert "no sketch regions" in refused("explain", path, "--region", "8:0,0")


def test_files_that_are_no_traces(refused, tmp_path):
    (tmp_path / "notes.safetensors").write_text("a cat")
    assert "notes.safetensors" in refused("explain", tmp_path / "notes.safetensors")
    assert "no such file" in refused("explain", tmp_path / "nothing.safetensors")
    assert "holds no trace" in refused("explain", tmp_path)
    assert "no run" in refused("explain", "01ABCDEF")
    assert "no run was named" in refused("explain", "")
    assert "no run" in refused("explain", "x" * 5000)


def test_json_numbers_of_a_word_are_as_worked_out_by_hand(scribble, tmp_path):
    maps = np.array([[0.1, 0.1, 0.1, 0.3], [0.2, 0.1, 0.1, 0.0], [0.4, 0.2, 0.2, 0.0]])
    weights = np.stack([maps, 1 - maps], axis=1).reshape(3, 1, 1, 2, 2, 2)
    trace = AttentionTrace.from_arrays({"layer": weights}, tokens=["cat", "[SEP]"])
    trace.save(tmp_path / "cat.safetensors", dtype="float32")
    (cat,) = scribble("explain", "cat.safetensors", "--format", "json").data["words"]
    assert cat["share"] == pytest.approx((0.6 + 0.4 + 0.8) / 12)
    # (-1, -1, -1, 3)/20 · (1, 0, 0, -1)/5 = -1/25, over √(3/100) · √(2/25).
    assert cat["r_with_last"] == pytest.approx([-math.sqrt(2 / 3), 1, 1], abs=1e-5)
    assert cat["settled_at_noise"] == pytest.approx(2 / 3)
    share = [7 / 18, 4 / 18, 4 / 18, 3 / 18]  # of the whole run, place by place
    shape = cat["shape"]
    assert shape.pop("peak_at") == pytest.approx([0.25, 0.25])
    assert shape.pop("centre") == pytest.approx([0.25 * 11 / 18 + 0.75 * 7 / 18] * 2)
    assert shape == pytest.approx(
        {
            "entropy": -sum(p * math.log2(p) for p in share),
            "evenness": -sum(p * math.log2(p) for p in share) / 2,
            "peak": 4 * 7 / 18,
            "spread": math.sqrt(2 * 0.25 * (11 / 18) * (7 / 18)),
        },
        abs=1e-5,
    )
    assert cat["did_nothing"]  # nowhere more than an even share of two keys, 1/2


@pytest.mark.parametrize("kind", ["png", "svg", "html", "gif", "webp"])
def test_views_lie_beside_a_loose_trace(scribble, trace_file, kind):
    whole = scribble("explain", trace_file, "--format", kind).last
    word = scribble("explain", trace_file, "--format", kind, "--word", "kite").last
    for path in (trace_file.parent / whole, trace_file.parent / word):
        assert path.parent == trace_file.parent
        assert path.name.startswith("run-")
        assert path.suffix == f".{kind}"
        if kind in ("png", "gif", "webp"):
            with Image.open(path) as image:
                assert np.ptp(np.asarray(image.convert("L"))) > 50
                assert kind != "png" or image.text["Prompt"] == PROMPT
    if kind in ("svg", "html"):
        assert whole != word


def test_views_are_kept_with_their_run_and_verify_still_passes(scribble, gallery, run):
    for named in (run.id, run.id[-6:].lower(), run.folder, run.folder / "trace.safetensors"):
        path = scribble("explain", named, "--format", "png", "--word", "kite").last
        assert path == str(run.folder / "views" / "map-kite-7.png")
    assert "views/map-kite-7.png" in gallery.get(run.id).files
    assert gallery.verify() == ()


def test_a_file_of_ones_own_name_decides_the_view(scribble, run, tmp_path):
    assert scribble("explain", run.id, "--output", "mine.gif").last == "mine.gif"
    with Image.open(tmp_path / "mine.gif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    assert scribble("explain", run.id, "--output", "told.json").last == "told.json"
    assert json.loads((tmp_path / "told.json").read_text())["prompt"].startswith("a red apple")
    assert scribble("explain", run.id, "--output", "told.txt").last == "told.txt"
    assert "kite" in (tmp_path / "told.txt").read_text()
    assert not (run.folder / "views").exists()


def test_a_picture_kept_beside_the_trace_is_shown(scribble, gallery, small_trace):
    bare = dataclasses.replace(small_trace, pictures=(), previews=None, sketch=None)
    kept = gallery.add(bare, picture=small_trace.picture)
    said = scribble("explain", kept.id, "--format", "png", "--word", "kite")
    alone = gallery.add(bare)
    other = scribble("explain", alone.id, "--format", "png", "--word", "kite")
    with Image.open(said.last) as over, Image.open(other.last) as without:
        assert over.tobytes() != without.tobytes()


def test_a_damaged_trace_is_named(refused, run):
    path = run.folder / "trace.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "trace.safetensors is damaged" in refused("explain", run.id, status=1)

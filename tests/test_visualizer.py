"""The one front door: made lazily, drawn once, and from a saved trace with no model installed."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from painted import PROMPT, make_trace
from PIL import Image

from scribblediffusion import AttentionVisualizer
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import (
    NoHeatMapError,
    SettingError,
    SketchError,
    TraceFileError,
    UnknownWordError,
)
from scribblediffusion.sketch import REGIONS, Region
from scribblediffusion.view.evolution import EvolutionStyle
from scribblediffusion.view.figure import FigureStyle


@pytest.fixture(scope="module")
def short():
    return make_trace(steps=3, grid=16)


@pytest.fixture
def visualizer(tmp_path):
    return AttentionVisualizer(tmp_path / "gallery")


def test_nothing_is_made_until_asked_for(tmp_path):
    AttentionVisualizer(tmp_path / "gallery")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingError, match="ground"):
        AttentionVisualizer(tmp_path, ground="grey")  # type: ignore[arg-type]


def test_a_prompt_folder_is_staged_inside_the_gallery_whatever_the_prompt(visualizer):
    for prompt in ("a red apple", "../../etc\x00", "CON"):
        folder = visualizer.create_prompt_folder(prompt, "an apple, drawn by hand")
        assert folder.is_dir()
        assert visualizer.gallery.root in folder.resolve().parents
    assert len(visualizer.gallery) == 0


def test_sketch_tokens_are_described_from_the_drawing(visualizer, trace):
    for number, region in ((77, REGIONS[0]), (141, Region(3, 0, 0)), (153, Region(2, 1, 1))):
        assert REGIONS[number - 77] == region
    text = visualizer.get_sketch_feature_description(153, None, trace.sketch)
    assert text == "lower right quarter: a closed shape with four corners, 7 % ink"
    heat = np.zeros((32, 32))
    heat[2, 30] = 1
    acted = visualizer.get_sketch_feature_description(153, heat, trace.sketch)
    assert (
        acted
        == f"{text}; acted most in the upper right of the picture, 1024.0 times the even share"
    )
    assert visualizer.get_sketch_feature_description(77) == "upper left: no ink"
    assert "acted nowhere" in visualizer.get_sketch_feature_description(77, heat * 0)
    for wrong in (-1, 154, 100.0, "80", None, True):
        with pytest.raises(SettingError, match="0 to 153"):
            visualizer.get_sketch_feature_description(wrong)
    assert visualizer.get_sketch_feature_description(np.int64(153), None, trace.sketch) == text
    with pytest.raises(SketchError):
        visualizer.get_sketch_feature_description(77, None, np.full((4, 4), np.nan))


def test_every_token_has_a_true_sentence_text_tokens_too(visualizer, trace):
    heat = trace.word("kite")
    said = [visualizer.get_sketch_feature_description(n, heat, trace.sketch) for n in range(154)]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert min(row, column) > 2 * 32 / 3 - 1
    acted = f"acted most in the lower right of the picture, {heat.max() * heat.size:.1f} times"
    assert all(acted in one for one in said)
    assert said[5].startswith("token 5: a text token, with no place in the sketch; ")
    assert [n for n, one in enumerate(said) if "text token" in one] == list(range(77))
    alone = visualizer.get_sketch_feature_description(76)
    assert alone == "token 76: a text token, with no place in the sketch"


@pytest.mark.parametrize(
    "map_",
    [np.full((4, 4), np.inf), np.full((4, 4), np.nan), np.array([[0.1, -0.2]]), np.zeros((0, 0)),
     np.zeros((2, 3, 4)), np.array([["a"]]), np.array([[1j]])],
)  # fmt: skip
def test_what_is_no_map_is_refused_by_name(visualizer, map_):
    with pytest.raises(SettingError, match="attention map"):
        visualizer.get_sketch_feature_description(100, map_)


def test_a_map_that_is_a_tensor_is_read_whatever_its_type_and_gradient(visualizer):
    torch = pytest.importorskip("torch")
    heat = torch.zeros(4, 4)
    heat[0, 3] = 1
    expected = visualizer.get_sketch_feature_description(100, heat.numpy())
    for given in (heat, heat.bfloat16(), heat.half(), heat.clone().requires_grad_()):
        assert visualizer.get_sketch_feature_description(100, given) == expected
    with pytest.raises(SettingError, match="attention map"):
        visualizer.get_sketch_feature_description(100, heat.bfloat16()[0])


def test_a_folder_that_is_a_file_is_named(visualizer, short, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    for folder in (taken, taken / "deeper"):
        for ask in (
            lambda: visualizer.create_evolution_gif(short, "", None, folder),  # noqa: B023
            lambda: visualizer.create_comprehensive_analysis(short, "", None, folder),  # noqa: B023
        ):
            with pytest.raises(SettingError, match=r"taken.*is a file"):
                ask()
    assert taken.read_text(encoding="utf-8") == "mine"


def test_huge_values_are_no_trouble(visualizer):
    text = visualizer.get_sketch_feature_description(100, np.full((4, 4), 1e308))
    assert text.endswith("1.0 times the even share")


def test_asked_twice_is_drawn_once(visualizer, short, tmp_path, monkeypatch):
    from scribblediffusion.view import figure
    from scribblediffusion.view.evolution import Evolution

    drawn = []
    of, analysis = Evolution.of, figure.analysis_figure
    monkeypatch.setattr(Evolution, "of", lambda *a, **k: drawn.append("gif") or of(*a, **k))
    monkeypatch.setattr(
        figure, "analysis_figure", lambda *a, **k: drawn.append("figure") or analysis(*a, **k)
    )
    for _ in range(2):
        gif = visualizer.create_evolution_gif(short, PROMPT, None, tmp_path)
        png = visualizer.create_comprehensive_analysis(short, PROMPT, None, tmp_path)
    assert drawn == ["gif", "figure"]
    gif.unlink()
    assert visualizer.create_evolution_gif(short, PROMPT, None, tmp_path).exists()
    light = EvolutionStyle(ground="light")
    visualizer.create_evolution_gif(short, PROMPT, None, tmp_path, style=light)
    visualizer.create_evolution_gif(short, PROMPT, short.sketch, tmp_path, style=light)
    assert drawn == ["gif", "figure", "gif", "gif", "gif"]
    assert png.name == "analysis.png"


def test_a_file_shows_what_was_asked_for_last_whoever_wrote_it_before(visualizer, short, tmp_path):
    light, dark = FigureStyle("light"), FigureStyle("dark")

    def analysis(style, by=visualizer):
        path = by.create_comprehensive_analysis(short, PROMPT, None, tmp_path, style=style)
        return path.read_bytes()

    first = analysis(light)
    assert analysis(dark) != first
    assert analysis(light) == first
    analysis(dark, AttentionVisualizer(tmp_path))
    assert analysis(light) == first
    other = make_trace(steps=3, grid=8)
    style = EvolutionStyle(panel=96)
    shown = [
        visualizer.create_evolution_gif(
            trace, PROMPT, None, tmp_path, word="apple", style=style
        ).read_bytes()
        for trace in (short, other, short)
    ]
    assert shown[0] == shown[2] != shown[1]


def test_words_regions_and_keys_have_files_of_their_own(visualizer, short, tmp_path):
    style = EvolutionStyle(panel=96)
    paths = {
        visualizer.create_evolution_gif(
            short, PROMPT, None, tmp_path, word=w, occurrence=n, style=style
        )
        for w, n in (("a", 0), ("a", 1), ("kite", 0), (Region(8, 1, 1), 0), (0, 0))
    }
    assert len({p.name for p in paths}) == 5
    for path in paths:
        with Image.open(path) as image:
            assert image.n_frames == 3
    with pytest.raises(UnknownWordError, match="kite"):
        visualizer.create_evolution_gif(short, PROMPT, None, tmp_path, word="dragon")


def test_phrases_that_begin_alike_have_files_of_their_own(visualizer, tmp_path):
    tokens = [*(f"extraordinary{i}" for i in range(7)), "[SEP]"]
    weights = np.random.default_rng(0).random((2, 1, 1, 8, 4, 4))
    trace = AttentionTrace.from_arrays(
        {"l": weights / weights.sum(axis=3, keepdims=True)}, tokens=tokens
    )
    paths = [
        visualizer.create_evolution_gif(
            trace, "", None, tmp_path, word=" ".join(tokens[:n]), style=EvolutionStyle(panel=96)
        )
        for n in (3, 4, 5, 6, 7)
    ]
    assert len(set(paths)) == len({path.read_bytes() for path in paths}) == 5
    assert max(len(path.name) for path in paths) < 100


def test_the_analysis_says_its_prompt_and_seed_as_text(visualizer, short, tmp_path):
    made = visualizer.create_comprehensive_analysis(short, PROMPT, None, tmp_path)
    kept = visualizer.process_attention_for_web(short, PROMPT, None).analysis_path
    for path in (made, kept):
        with Image.open(path) as image:
            assert (image.text["Prompt"], image.text["Seed"]) == (PROMPT, "7")
    assert [p.name for p in tmp_path.glob("*.png")] == ["analysis.png"]
    assert not list(tmp_path.glob(".analysis-*"))


def test_the_drawing_over_a_map_is_the_traces_or_the_one_given_or_an_error(visualizer, short):
    bare = dataclasses.replace(short, sketch=None)
    plain = np.asarray(visualizer.heat_map(short, "kite", size=128))
    own = np.asarray(visualizer.heat_map(short, "kite", size=128, sketch=True))
    given = np.asarray(visualizer.heat_map(bare, "kite", size=128, sketch=short.sketch))
    assert np.abs(own.astype(int) - plain).max() > 100
    assert np.abs(own.astype(int) - given).mean() < 1
    with pytest.raises(SketchError, match="holds no sketch"):
        visualizer.heat_map(bare, "kite", sketch=True)


@pytest.mark.parametrize("data", [{"a": np.ones((2, 2))}, np.ones((2, 2)), None, "", 3, b"x"])
def test_what_is_no_trace_is_refused_and_told_what_to_give(visualizer, data, tmp_path):
    for ask in (
        lambda: visualizer.summary(data),
        lambda: visualizer.heat_map(data),
        lambda: visualizer.create_evolution_gif(data, "", None, tmp_path),
        lambda: visualizer.create_comprehensive_analysis(data, "", None, tmp_path),
        lambda: visualizer.process_attention_for_web(data, "", None),
    ):
        with pytest.raises(SettingError, match=r"AttentionTrace\.from_arrays"):
            ask()


@pytest.mark.parametrize("drawing", [None, "own"])
def test_a_run_of_the_gallery_is_kept_once(visualizer, short, drawing):
    run = visualizer.gallery.add(short)
    drawing = drawing and short.sketch
    for data in (run, run.folder, run.folder / "trace.safetensors"):
        by = AttentionVisualizer(visualizer.root)
        view = by.process_attention_for_web(data, PROMPT, drawing)
        assert view.gallery["id"] == run.id
        assert view.gif_path.parent == view.analysis_path.parent == run.folder / "views"
    assert len(visualizer.gallery) == 1
    assert visualizer.gallery.verify() == ()
    other = visualizer.process_attention_for_web(run, PROMPT, short.sketch[:, ::-1])
    assert other.gallery["id"] != run.id
    assert len(visualizer.gallery) == 2


def test_the_analysis_comes_in_every_format(visualizer, short, tmp_path):
    made = visualizer.create_comprehensive_analysis(
        short, PROMPT, None, tmp_path / "new", formats=("svg", "html")
    )
    assert made == tmp_path / "new" / "analysis.svg"
    assert sorted(p.name for p in made.parent.iterdir()) == ["analysis.html", "analysis.svg"]
    for wrong in ((), ("jpg",)):
        with pytest.raises(SettingError, match="png, svg, pdf and html"):
            visualizer.create_comprehensive_analysis(short, PROMPT, None, tmp_path, formats=wrong)


def test_the_web_view_keeps_the_run_whole_and_once(visualizer, short):
    view = visualizer.process_attention_for_web(short, PROMPT, short.sketch)
    image, gif, png, about = view
    assert image.size[0] > 256
    assert visualizer.process_attention_for_web(short, PROMPT, short.sketch) is view
    (run,) = visualizer.gallery.list()
    assert about["id"] == run.id
    assert (about["prompt"], about["seed"]) == (PROMPT, 7)
    assert gif.is_relative_to(run.folder)
    assert gif.exists()
    assert png.exists()
    assert visualizer.gallery.verify() == ()
    again = visualizer.gallery.open(run.id)
    np.testing.assert_allclose(again.word("apple"), short.word("apple"), atol=1e-5)


def test_a_web_view_that_lost_files_is_drawn_into_its_run(visualizer, tmp_path):
    first = make_trace(steps=1, grid=8)
    path = first.save(tmp_path / "first.safetensors")
    view = visualizer.process_attention_for_web(path, PROMPT, None)
    for lost in (view.analysis_path, view.gif_path):
        lost.unlink()
        again = visualizer.process_attention_for_web(path, PROMPT, None)
        assert again[1:] == view[1:]
        assert lost.exists()
    for seed in range(4):  # more traces than it keeps in mind
        other = dataclasses.replace(first, settings={"seed": seed})
        visualizer.heat_map(other.save(tmp_path / f"{seed}.safetensors"))
    assert visualizer.process_attention_for_web(path, PROMPT, None).gallery == view.gallery
    assert len(visualizer.gallery) == 1
    assert visualizer.gallery.verify() == ()
    visualizer.gallery.delete(view.gallery["id"])
    anew = visualizer.process_attention_for_web(path, PROMPT, None)
    assert anew.gallery["id"] != view.gallery["id"]


def test_a_sketch_without_words_still_has_a_view(visualizer):
    rng = np.random.default_rng(0)
    weights = rng.random((2, 1, 1, 78, 8, 8))
    regions = {r: 1 + i for i, r in enumerate(REGIONS)}
    trace = AttentionTrace.from_arrays(
        {"l": weights / weights.sum(axis=3, keepdims=True)},
        tokens=["[CLS]"],
        streams={"text": range(1), "sketch": range(1, 78)},
        regions=regions,
    )
    gif = visualizer.process_attention_for_web(trace, "", None).gif_path
    assert gif.exists()
    half = np.full((1, 1, 1, 2, 4, 4), 0.5)
    nothing = AttentionTrace.from_arrays({"l": half}, tokens=["[CLS]", "[SEP]"])
    with pytest.raises(NoHeatMapError, match="2 tokens"):
        visualizer.process_attention_for_web(nothing, "", None)


def test_words_that_are_silent_at_one_step_have_views(visualizer, tmp_path):
    weights = np.full((2, 3, 4, 4), 0.3)
    weights[0, 0] = weights[1, 1] = 0
    weights[1, 0, 1, 1] = weights[0, 1, 2, 2] = 0.9
    weights /= weights.sum(axis=1, keepdims=True)
    trace = AttentionTrace.from_arrays(
        {"l": weights[:, None, None]}, tokens=["cat", "hat", "[SEP]"]
    )
    with Image.open(visualizer.create_evolution_gif(trace, "", None, tmp_path)) as gif:
        assert gif.n_frames == 2
    assert visualizer.process_attention_for_web(trace, "", None).gif_path.exists()
    path = visualizer.create_comprehensive_analysis(trace, "", None, tmp_path, formats=("html",))
    assert '"silent":[0]' in path.read_text(encoding="utf-8")


def test_a_saved_trace_is_as_good_and_is_read_once(visualizer, short, tmp_path, monkeypatch):
    path = short.save(tmp_path / "run.safetensors")
    read, load = [], AttentionTrace.load
    monkeypatch.setattr(AttentionTrace, "load", lambda p: read.append(p) or load(p))
    assert visualizer.summary(path).leading_word == visualizer.summary(short).leading_word
    visualizer.heat_map(path, "kite", step=1, sketch=True, size=128)
    assert len(read) == 1
    for none in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError):
            visualizer.summary(none)
    run = visualizer.gallery.add(short)
    assert visualizer.summary(run.folder).leading_word == visualizer.summary(short).leading_word
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TraceFileError):
        visualizer.summary(path)


def test_a_map_is_read_from_its_trace_once_and_anew_from_a_changed_file(
    visualizer, short, tmp_path, monkeypatch
):
    path = short.save(tmp_path / "run.safetensors")
    read, word = [], AttentionTrace.word
    monkeypatch.setattr(AttentionTrace, "word", lambda *a, **k: read.append(1) or word(*a, **k))
    first = visualizer.heat_map(path, "kite", size=128)
    assert visualizer.heat_map(path, "kite", size=128).tobytes() == first.tobytes()
    assert len(read) == 1
    for other in ({"step": 1}, {"view": "attention"}):
        assert visualizer.heat_map(path, "kite", size=128, **other).tobytes() != first.tobytes()
    assert len(read) == 3
    make_trace(steps=2, grid=8).save(path)
    assert visualizer.heat_map(path, "kite", size=128).tobytes() != first.tobytes()
    assert len(read) == 4


def test_the_traces_own_prompt_is_shown_and_another_one_is_warned_of(
    visualizer, short, tmp_path, caplog
):
    visualizer.create_comprehensive_analysis(short, "a green pear", None, tmp_path)
    assert "not of 'a green pear'" in caplog.text
    unnamed = dataclasses.replace(short, prompts=(dataclasses.replace(short.prompts[0], text=""),))
    html = visualizer.create_comprehensive_analysis(
        unnamed, "a green pear", None, tmp_path, formats=("html",)
    )
    assert "<h1>“a green pear”</h1>" in html.read_text(encoding="utf-8")


def test_it_works_where_torch_and_diffusers_are_not_installed(short, tmp_path):
    path = short.save(tmp_path / "run.safetensors")
    code = f"""
import sys
for name in ("torch", "diffusers", "transformers", "gradio"):
    sys.modules[name] = None
from scribblediffusion import AttentionVisualizer
v = AttentionVisualizer({str(tmp_path / "g")!r})
v.create_evolution_gif({str(path)!r}, "", None, {str(tmp_path)!r}, word="red apple")
v.create_comprehensive_analysis({str(path)!r}, "", None, {str(tmp_path)!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "analysis.png").exists()


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_what_cannot_be_a_path_is_named(tmp_path, path):
    with pytest.raises(SettingError, match="cannot be a path"):
        AttentionVisualizer(tmp_path).summary(path)


def test_steps_are_counted_from_the_end_as_everywhere(tmp_path, trace):
    made = AttentionVisualizer(tmp_path)
    last, same = (made.heat_map(trace, "apple", step=s) for s in (trace.steps[-1].index, -1))
    assert last.tobytes() == same.tobytes()
    with pytest.raises(SettingError, match="from 96 to 4096"):
        made.heat_map(trace, "apple", size=200_000)

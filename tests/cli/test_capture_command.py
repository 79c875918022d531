import json

import numpy as np
import pytest
import torch
from PIL import Image
from scribbles import small_pipeline

from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import GalleryError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A Stable Diffusion of a few thousand weights, on disk."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "attention"))
    try:
        from tiny_pipelines import stable_diffusion
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    stable_diffusion().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A small `ScribblePipeline` on disk."""
    folder = tmp_path_factory.mktemp("models") / "small"
    small_pipeline().save_pretrained(folder)
    return folder


def test_any_pipeline_is_captured_and_kept(scribble, gallery, tiny, tmp_path):
    done = scribble("capture", tiny, "a red apple", "--seed", 3, "--steps", 3, "--guidance", 4,
                    "--output", "out.png")  # fmt: skip
    assert done.status == 0, done
    assert "audit: passed" in done.out
    assert done.last == "seed 3"
    (run,) = gallery
    trace = run.open()
    assert [w.text for w in trace.words] == ["a", "red", "apple"]
    assert len(trace.steps) == 3
    assert run.record["settings"] == {
        "model": str(tiny), "pipeline": "StableDiffusionPipeline", "seed": 3,
        "num_inference_steps": 3, "guidance_scale": 4.0,
    }  # fmt: skip
    kept, written = Image.open(run.image), Image.open(tmp_path / "out.png")
    assert np.array_equal(np.asarray(kept), np.asarray(written))
    assert trace.picture_size == written.size[::-1]
    assert (written.text["Prompt"], written.text["Seed"]) == ("a red apple", "3")
    assert "apple" in scribble("explain", run.id).out


def test_a_name_that_cannot_be_is_refused_before_anything_is_drawn(refused, gallery, tiny):
    assert "must end in .png" in refused("capture", tiny, "a cat", "--output", "x.xyz")
    assert len(gallery) == 0


def test_where_the_picture_cannot_be_written_the_run_is_kept(scribble, gallery, tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scribblediffusion.cli.capture.write_picture", full)
    assert scribble("capture", tiny, "a cat", "--steps", 1, "--output", "x.png").status == 1
    assert len(gallery) == 1


def test_where_the_run_cannot_be_kept_the_picture_is_written(scribble, tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise GalleryError("cannot save the run: the disk is full")

    monkeypatch.setattr("scribblediffusion.gallery.Gallery.add", full)
    done = scribble("capture", tiny, "a cat", "--steps", 1, "--output", "x.png")
    assert (done.status, done.err.count("the disk is full")) == (1, 1)
    assert (tmp_path / "x.png").is_file()


def test_a_gallery_that_cannot_be_is_named_before_anything_is_drawn(refused, tiny):
    assert "/dev/null/g" in refused("capture", tiny, "a cat", "--gallery", "/dev/null/g")


def test_the_picture_is_that_of_the_pipeline_alone(scribble, gallery, tiny):
    from diffusers import StableDiffusionPipeline

    scribble("capture", tiny, "a red apple", "--seed", 3, "--steps", 2)
    (run,) = gallery
    pipe = StableDiffusionPipeline.from_pretrained(tiny, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    alone = pipe("a red apple", num_inference_steps=2, generator=torch.manual_seed(3)).images[0]
    assert np.array_equal(np.asarray(Image.open(run.image)), np.asarray(alone))


def test_a_captured_run_is_repeated_bit_for_bit(scribble, gallery, tiny):
    scribble("capture", tiny, "a red apple", "--seed", 3, "--steps", 2)
    (run,) = gallery
    done = scribble("gallery", "rerun", run.id)
    assert done.status == 0, done
    assert f"the same bits as run {run.id}" in done.last
    assert gallery.list().runs[0].record["settings"]["rerun_of"] == run.id


def test_our_own_model_is_captured_too(scribble, gallery, ours):
    done = scribble("capture", ours, "a red apple", "--seed", 3, "--steps", 2)
    assert done.status == 0, done
    (run,) = gallery
    assert isinstance(run.open(), AttentionTrace)
    assert run.record["settings"]["pipeline"] == "ScribblePipeline"
    assert "the same bits" in scribble("gallery", "rerun", run.id).last


def test_models_that_cannot_be_captured_are_one_line(refused, tiny, tmp_path):
    assert "no such folder" in refused("capture", tmp_path / "nothing", "a cat")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("capture", "empty", "a cat")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model_index.json").write_text(json.dumps({"_class_name": "NoPipeline"}))
    assert "NoPipeline" in refused("capture", "odd", "a cat")
    assert "no folder" in refused("capture", tiny, "a cat", "--output", "nowhere/x.png")
    assert "--steps" in refused("capture", tiny, "a cat", "--steps", "0")


def test_an_unknown_family_is_one_line(refused, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    DDPMPipeline(unet=unet, scheduler=DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    assert "UNet2DModel" in refused("capture", "ddpm", "a cat")

import json
import pickle
import shutil

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from scribbles import small_pipeline

from scribblediffusion.errors import WeightsError
from scribblediffusion.model.weights import FILE, shipped, verify, write_checksums
from scribblediffusion.pipeline import ScribblePipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.fixture
def unlisted(folder):
    """A folder without checksums, as other tools leave one."""
    (folder / "checksums.json").unlink()
    return folder


def refused(folder, *words):
    with pytest.raises(WeightsError) as caught:
        ScribblePipeline.from_pretrained(folder)
    for word in words:
        assert word in str(caught.value)


def edit(folder, change, component="unet"):
    path = folder / component / FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_what_was_saved_loads_with_the_same_values(folder):
    pipe = ScribblePipeline.from_pretrained(folder, device="cpu")
    for name, value in small_pipeline().unet.state_dict().items():
        assert torch.equal(pipe.unet.state_dict()[name], value), name


def test_the_shipped_weights_are_whole_small_and_half_precision():
    verify(shipped())
    assert sum(p.stat().st_size for p in shipped().rglob("*")) < 60e6
    kinds = {v.dtype for v in load_file(shipped() / "unet" / FILE).values()}
    assert kinds == {torch.float16}


def test_a_missing_tensor(unlisted):
    edit(unlisted, lambda t: t.pop("conv_in.weight"))
    refused(unlisted, FILE, "missing", "conv_in.weight")


def test_an_extra_tensor(unlisted):
    edit(unlisted, lambda t: t.update(surprise=torch.zeros(1)))
    refused(unlisted, FILE, "surprise")


def test_a_wrong_shape(unlisted):
    edit(unlisted, lambda t: t.update({"conv_out.bias": torch.zeros(5)}))
    refused(unlisted, FILE, "conv_out.bias", "(5,)", "(4,)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("component", ["unet", "autoencoder", "sketch_encoder", "prompt_encoder"])
def test_values_that_are_not_finite(unlisted, component, value):
    def spoil(tensors):
        name = next(n for n, t in tensors.items() if t.is_floating_point() and t.ndim == 1)
        tensors[name][0] = value

    edit(unlisted, spoil, component)
    refused(unlisted, component, "not finite")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_at_any_length(unlisted, keep):
    path = unlisted / "unet" / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    refused(unlisted, str(path), "truncated")


def test_an_altered_file_of_the_right_form(folder):
    write_checksums(folder)
    verify(folder)
    path = folder / "sketch_encoder" / FILE
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    refused(folder, str(path), "altered")


def test_a_pickle_is_never_opened(unlisted):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    (unlisted / "unet" / FILE).unlink()
    (unlisted / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refused(unlisted, "diffusion_pytorch_model.bin", "pickle")


@pytest.mark.parametrize("component", ["unet", "prompt_encoder"])
@pytest.mark.parametrize(
    "name",
    ["diffusion_pytorch_model.bin", "shard.pt", f"{FILE}.index.json", f"{FILE}.index.fp16.json"],
)
def test_nothing_beside_the_checked_file_may_be_loaded_in_its_place(folder, component, name):
    """diffusers prefers an index to the one file, and opens the shards it names with torch.load."""
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "shard.data"}}
    (folder / component / name).write_text(json.dumps(index))
    refused(folder, str(folder / component / name))


@pytest.mark.parametrize("options", [{"variant": "fp16"}, {"use_flashpack": True}])
def test_options_that_load_other_files_are_refused_by_name(folder, options):
    with pytest.raises(WeightsError, match=next(iter(options))):
        ScribblePipeline.from_pretrained(folder, **options)
    with pytest.raises(WeightsError, match="pickles are never loaded"):
        ScribblePipeline.from_pretrained(folder, use_safetensors=False)


def test_options_that_only_say_what_is_so_are_taken(folder):
    options = {"local_files_only": True, "use_safetensors": True, "variant": None}
    assert ScribblePipeline.from_pretrained(folder, device="cpu", **options) is not None


def test_a_pickle_under_the_right_name(unlisted):
    (unlisted / "unet" / FILE).write_bytes(pickle.dumps({"conv_in.weight": [1.0]}))
    refused(unlisted, FILE)


def test_no_folder_no_index_no_component_no_json(unlisted, tmp_path):
    refused(tmp_path / "nowhere", "nowhere")
    shutil.rmtree(unlisted / "autoencoder")
    refused(unlisted, "autoencoder")
    (unlisted / "unet" / "config.json").write_text("{")
    refused(unlisted, "config.json")
    (unlisted / "model_index.json").unlink()
    refused(unlisted, "model_index.json")


def test_a_configuration_of_another_model(unlisted):
    path = unlisted / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"block_out_channels": [32, 64, 96]}))
    refused(unlisted, "unet")


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("prompt_encoder", {"heads": 0}),
        ("prompt_encoder", {"heads": 7}),
        ("unet", {"attention_head_dim": 0}),
        ("unet", {"block_out_channels": [], "down_block_types": [], "up_block_types": [],
                  "only_cross_attention": False}),
    ],
)  # fmt: skip
def test_a_configuration_of_no_model(unlisted, component, changes):
    path = unlisted / component / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(unlisted, str(path), "no model fits it")


def edit_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    (folder / "checksums.json").unlink()


@pytest.mark.parametrize(
    "entries",
    [
        {"unet": ["diffusers", "UNet2DConditionModel"]},
        {"unet": [None, None]},
        {"unet": None},
        {"tokenizer": ["os", "system"]},
        {"scheduler": ["diffusers", "AutoencoderKL"]},
        {"_class_name": ["pipeline", "Own"]},
    ],
)
def test_an_index_that_names_other_classes(folder, entries):
    edit_index(folder, **entries)
    refused(folder, "model_index.json")


def test_a_tokenizer_or_scheduler_that_is_missing_or_damaged(unlisted):
    (unlisted / "scheduler" / "scheduler_config.json").write_text("[]")
    refused(unlisted, "scheduler_config.json", "JSON object")
    (unlisted / "scheduler" / "scheduler_config.json").unlink()
    refused(unlisted, "scheduler_config.json", "missing")
    tokenizer = unlisted / "tokenizer" / "tokenizer.json"
    spoilt = json.loads(tokenizer.read_text())
    spoilt["model"]["vocab"].popitem()
    tokenizer.write_text(json.dumps(spoilt))
    shutil.copytree(shipped() / "scheduler", unlisted / "scheduler", dirs_exist_ok=True)
    refused(unlisted, "tokenizer.json", "30521")
    shutil.rmtree(unlisted / "tokenizer")
    refused(unlisted, "tokenizer.json", "missing")


def test_what_is_saved_is_noted_and_an_altered_copy_refused(folder):
    assert "unet/config.json" in json.loads((folder / "checksums.json").read_text())
    (folder / "README.md").write_text("a word of one's own")
    verify(folder)
    data = bytearray((folder / "unet" / FILE).read_bytes())
    data[-7] ^= 1
    (folder / "unet" / FILE).write_bytes(data)
    refused(folder, FILE, "altered")


@pytest.fixture
def hub(folder, monkeypatch, tmp_path):
    """A hub that has the folder as its only model; gives the folder to be changed."""

    def fetch(name, *, allow_patterns, ignore_patterns):
        assert name == "me/small"
        wanted = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        for file in filter_repo_objects(files, **wanted):
            target = tmp_path / "fetched" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, target)
        return str(tmp_path / "fetched")

    monkeypatch.setattr("scribblediffusion.pipeline.snapshot_download", fetch)
    return folder


def test_a_model_of_a_hub_is_held_against_its_checksums(hub):
    (hub / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"is not fetched")
    assert ScribblePipeline.from_pretrained("me/small", device="cpu") is not None
    edit(hub, lambda t: t["conv_in.weight"].mul_(2))
    with pytest.raises(WeightsError, match="altered"):
        ScribblePipeline.from_pretrained("me/small", device="cpu")


def test_a_model_of_a_hub_may_have_no_checksums(hub):
    (hub / "checksums.json").unlink()
    assert ScribblePipeline.from_pretrained("me/small", device="cpu") is not None


def test_a_model_that_was_fetched_once_needs_no_hub(saved, tmp_path):
    kept = tmp_path / "models--me--small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(saved, kept / "snapshots" / ("0" * 40))
    options = {"cache_dir": tmp_path, "local_files_only": True}
    assert ScribblePipeline.from_pretrained("me/small", device="cpu", **options) is not None
    with pytest.raises(WeightsError, match="neither a folder here nor a model"):
        ScribblePipeline.from_pretrained("me/other", **options)

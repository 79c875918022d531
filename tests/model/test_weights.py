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


@pytest.mark.parametrize(
    ("component", "name", "kind", "said"),
    [
        ("unet", "conv_out.bias", torch.int32, "torch.int32, expected torch.float16 or"),
        ("unet", "conv_out.bias", torch.bool, "torch.bool"),
        ("unet", "conv_out.bias", torch.float8_e4m3fn, "torch.float8_e4m3fn"),
        ("prompt_encoder", "table", torch.float32, "torch.float32, expected torch.int8"),
        ("prompt_encoder", "table", torch.int64, "torch.int64, expected torch.int8"),
    ],
)
def test_numbers_of_another_kind(unlisted, component, name, kind, said):
    edit(unlisted, lambda t: t.update({name: t[name].to(kind)}), component)
    refused(unlisted, component, name, said)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_fractions_of_any_precision_are_taken(unlisted, kind):
    edit(unlisted, lambda t: t.update({k: v.to(kind) for k, v in t.items()}))
    verify(unlisted)


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


def relist(folder, change):
    path = folder / "checksums.json"
    sums = json.loads(path.read_text())
    change(sums)
    path.write_text(json.dumps(sums))


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        f"unet/{FILE}",
        "autoencoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_checksums_list_every_file_that_is_read(folder, name):
    relist(folder, lambda sums: sums.pop(name))
    refused(folder, "checksums.json", f"{name} is not listed", "save_pretrained")


def test_checksums_of_nothing_and_what_was_put_beside_the_tokenizer(folder):
    (folder / "tokenizer" / ".hidden").write_text("is not read")
    verify(folder)
    (folder / "tokenizer" / "added_tokens.json").write_text("{}")
    refused(folder, "tokenizer/added_tokens.json is not listed")
    relist(folder, dict.clear)
    refused(folder, "is not listed")


def test_the_shipped_weights_must_have_their_checksums(folder, monkeypatch):
    monkeypatch.setattr("scribblediffusion.model.weights.shipped", lambda: folder)
    verify(folder)
    (folder / "checksums.json").unlink()
    refused(folder, "checksums.json", "missing from the package")


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


@pytest.mark.parametrize(
    "options", [{"variant": "fp16"}, {"use_flashpack": True}, {"device_map": "balanced"}]
)
def test_options_that_load_otherwise_are_refused_by_name(folder, options):
    with pytest.raises(WeightsError, match=next(iter(options))):
        ScribblePipeline.from_pretrained(folder, **options)
    with pytest.raises(WeightsError, match="pickles are never loaded"):
        ScribblePipeline.from_pretrained(folder, use_safetensors=False)


def test_options_that_only_say_what_is_so_are_taken(folder):
    options = {
        "local_files_only": True,
        "use_safetensors": True,
        "variant": None,
        "device_map": None,
    }
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
        {"tokenizer": ["transformers", "CLIPTokenizer"]},
        {"scheduler": ["diffusers", "AutoencoderKL"]},
        {"scheduler": ["diffusers", "EulerDiscreteScheduler"]},
        {"scheduler": [["diffusers"], {}]},
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_train_timesteps", 500),
        ("shift", 3.0),
        ("shift_terminal", 0.1),
        ("time_shift_type", "none"),
        ("use_dynamic_shifting", True),
        ("use_karras_sigmas", True),
        ("use_exponential_sigmas", True),
        ("use_beta_sigmas", True),
        ("invert_sigmas", True),
        ("stochastic_sampling", True),
    ],
)
def test_a_scheduler_with_other_noise_levels(unlisted, field, value):
    path = unlisted / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {field: value}))
    refused(unlisted, str(path), f"{field} must be {config[field]!r}, found {value!r}")


@pytest.mark.parametrize("number", [7, 30522, -1, "8", None, [3], True])
def test_words_that_are_not_numbered_as_the_table(unlisted, number):
    path = unlisted / "tokenizer" / "tokenizer.json"
    spoilt = json.loads(path.read_text())
    spoilt["model"]["vocab"]["cat"] = number
    path.write_text(json.dumps(spoilt))
    refused(unlisted, str(path), "numbered from 0 to 30521")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"pad_token": 3}'),
        ("tokenizer.json", {"normalizer": {"type": "None"}}),
        ("tokenizer.json", {"version": "9"}),
        ("tokenizer.json", {"added_tokens": 5}),
    ],
)
def test_a_tokenizer_that_cannot_be_made(unlisted, file, content):
    path = unlisted / "tokenizer" / file
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_text(content)
    refused(unlisted, str(unlisted / "tokenizer"), "no tokenizer can be made")


def test_words_that_were_added_are_refused(unlisted):
    path = unlisted / "tokenizer" / "tokenizer_config.json"
    added = {"30522": {"content": "<cat-toy>", "special": False}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens_decoder": added}))
    refused(unlisted, str(unlisted / "tokenizer"), "30523 words", "30522")


def test_a_name_that_no_folder_can_have():
    for name in ("x" * 300, "/" + "x" * 300):
        with pytest.raises(WeightsError, match="neither a folder here nor a model"):
            ScribblePipeline.from_pretrained(name)


def test_json_of_endless_depth(unlisted):
    path = unlisted / "scheduler" / "scheduler_config.json"
    path.write_text("[" * 200_000)
    refused(unlisted, str(path), "not readable")


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

import numpy as np
import pytest
import torch
from launching import launched
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from scribblediffusion.cli import app
from scribblediffusion.errors import WeightsError
from scribblediffusion.model.autoencoder import ScribbleAutoencoder
from scribblediffusion.model.weights import FILE, shipped
from scribblediffusion.train.autoencoder import AutoencoderTrainer, psnr, to_tensor
from scribblediffusion.train.preview import PreviewTrainer, lessons, likeness
from scribblediffusion.train.scenes import scene


@pytest.fixture(scope="module")
def data():
    return np.stack([scene(i, seed=1).picture for i in range(4)])


def test_psnr_of_a_known_error():
    truth = torch.zeros(2, 3, 8, 8)
    assert psnr(truth + 0.2, truth) == pytest.approx(20.0, abs=1e-4)  # 0.1 of the range


def test_pixels_survive_the_way_to_a_tensor():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    back = ((to_tensor(images) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    assert np.array_equal(back.numpy(), images)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(data, tmp_path):
    whole = AutoencoderTrainer(data, batch=2, cpu=True)
    whole.run_step()
    whole.save(tmp_path)
    whole.run_step()
    again = AutoencoderTrainer(data, batch=2, seed=0, cpu=True)
    again.load(tmp_path)
    again.run_step()
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name


@pytest.mark.slow
def test_the_same_export_again_keeps_previews_that_were_taught_since(data, tmp_path):
    trainer = AutoencoderTrainer(data, batch=2, cpu=True)
    trainer.run_step()
    trainer.save(tmp_path / "state")
    trainer.export(tmp_path / "weights")
    file = tmp_path / "weights" / FILE
    weights = load_file(file)
    taught = next(name for name in weights if name.startswith("preview_"))
    save_file(weights | {taught: weights[taught] + 1}, file)
    for steps in (0, 1):
        again = AutoencoderTrainer(data, batch=2, cpu=True)
        again.load(tmp_path / "state")
        for _ in range(steps):
            again.run_step()
        again.export(tmp_path / "weights")
        kept = np.array_equal(load_file(file)[taught], weights[taught] + 1)
        assert kept is (steps == 0)


@pytest.mark.long
@pytest.mark.slow
def test_two_devices_train_one_autoencoder(data, tmp_path):
    """Each sees crops and noise of its own, both end with the same weights, and one writes."""
    np.save(tmp_path / "data.npy", data)
    launched("two_autoencoders.py", tmp_path / "data.npy", tmp_path)
    found = np.load(tmp_path / "found.npz")
    assert found["losses"].shape == (2, 2, 2)
    assert len(np.unique(found["losses"])) == 8
    assert np.array_equal(found["sums"][0], found["sums"][1])
    assert np.array_equal(found["stopped"][0], found["stopped"][1])
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"checkpoint-0", "exported-0"}


@pytest.mark.slow
def test_the_decoder_alone_leaves_the_latents(data, tmp_path):
    trainer = AutoencoderTrainer(data, batch=2, decoder_only=True, cpu=True)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    reports = trainer.run(minutes=10)
    assert next(reports).step == 1
    assert next(reports).step == 2
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all("decode" in name for name in changed)


@pytest.mark.slow
def test_previews_come_to_look_like_pictures_and_nothing_else_changes():
    torch.manual_seed(0)
    model = ScribbleAutoencoder()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    heard = []
    latents, decoded = lessons(model, 2, heard.append)
    assert sum(heard) == len(latents) == len(decoded) == 4
    was = likeness(model, 1)
    losses = list(PreviewTrainer(model, latents, decoded).run(20, batch=2))
    assert losses[-1] < losses[0]
    assert likeness(model, 1) > was
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(name.startswith("preview_") for name in changed)


@pytest.mark.long
@pytest.mark.slow
def test_the_command_begins_with_the_shipped_autoencoder_and_keeps_its_latents(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("scribblediffusion.cli.train._log", lambda: None)  # it is for a process
    runs = ["--runs", str(tmp_path)]
    result = CliRunner().invoke(app, ["train", "preview", "--scenes", "2", "--steps", "1", *runs])
    assert result.exit_code == 0, result.output
    made, given = (
        ScribbleAutoencoder.from_pretrained(folder / "autoencoder", low_cpu_mem_usage=False)
        for folder in (tmp_path, shipped())
    )
    differing = {
        name for name, value in made.state_dict().items()
        if not torch.equal(value, given.state_dict()[name])
    }  # fmt: skip
    assert differing
    assert all(name.startswith("preview_") for name in differing)


def test_a_folder_without_a_checkpoint_is_named(data, tmp_path):
    with pytest.raises(WeightsError, match="no checkpoint"):
        AutoencoderTrainer(data, batch=2, cpu=True).load(tmp_path)

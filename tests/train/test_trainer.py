from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from launching import launched

from scribblediffusion.errors import SettingError, TrainingError
from scribblediffusion.model.weights import shipped
from scribblediffusion.train import checkpoint, trainer
from scribblediffusion.train.batches import chosen, collate, rows_of
from scribblediffusion.train.checkpoint import CHECKPOINT
from scribblediffusion.train.denoiser import DECIDED, Losses, Recipe, noise_levels
from scribblediffusion.train.grounding import grounding_loss
from scribblediffusion.train.latents import Shard, object_masks, spans
from scribblediffusion.train.naming import said
from scribblediffusion.train.objects import FAMILIES, known
from scribblediffusion.train.scenes import scene
from scribblediffusion.train.trainer import Trainer, dropped
from scribblediffusion.train.words import word_tokenizer

RECIPE = Recipe(batch=2, rate=1e-3, warm_up=2)


@pytest.fixture(scope="module")
def shard():
    """Six real scenes; the latents are noise of the right shape, since no autoencoder runs."""
    scenes = [scene(i, seed=5) for i in range(6)]
    rng = np.random.default_rng(0)
    return Shard(
        latents=rng.normal(size=(6, 4, 32, 32)).astype(np.float16),
        ink=np.stack([np.packbits(one.sketch > 127) for one in scenes]),
        labels=np.stack([one.labels[4::8, 4::8] for one in scenes]),
        captions=[one.caption for one in scenes],
        spans=[spans(one) for one in scenes],
    )


def begun(shard, **options):
    trainer = Trainer(RECIPE, shard, cpu=True, **options)
    trainer.begin(shipped())
    return trainer


def two_steps_on(shard, folder):
    """A run that has made two steps, and kept them."""
    trainer = begun(shard)
    for _ in range(2):
        trainer.run_step()
    trainer.save(folder)
    return trainer


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_every_scene_once_an_epoch():
    steps = [rows_of(step, scenes=10, batch=2, seed=0) for step in range(10)]
    first, second = np.concatenate(steps[:5]), np.concatenate(steps[5:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert not np.array_equal(first, second)


def test_a_batch_knows_its_objects(shard):
    tokenizer = word_tokenizer()
    batch = collate(shard, np.arange(6), tokenizer, np.random.default_rng(0))
    for row, found in enumerate(batch.words):
        for number in {span[0] for span in shard.spans[row]}:
            named = tokenizer.decode(batch.ids[row][found[number]])
            places = [s for s in shard.spans[row] if s[0] == number]
            text = " ".join(shard.captions[row][start:end] for _, _, start, end in places)
            assert named.replace(" ", "") == text.replace(" ", "").lower()


def test_conditions_are_dropped_as_often_as_the_recipe_says():
    text, sketch = dropped(Recipe(), torch.linspace(0, 1 - 1e-6, 10_000))
    assert float((~text).float().mean()) == pytest.approx(0.15, abs=2e-3)
    assert float((~sketch).float().mean()) == pytest.approx(0.12, abs=2e-3)
    assert float((~text & ~sketch).float().mean()) == pytest.approx(0.05, abs=2e-3)


def test_noise_levels_reach_both_ends():
    sigma = noise_levels(20_000, torch.Generator().manual_seed(0))
    assert 0 <= float(sigma.min()) < 0.01
    assert 0.99 < float(sigma.max()) <= 1
    assert float(sigma.mean()) == pytest.approx((2 / 2 + 2 / 3 + (1 + DECIDED) / 2) / 4, abs=0.01)


def test_grounding_is_least_where_the_words_point_at_their_objects(shard):
    batch = collate(shard, np.arange(6), word_tokenizer(), np.random.default_rng(0))
    places = torch.from_numpy(batch.labels.reshape(6, -1).astype(int))
    tokens = batch.ids.shape[1]
    right = torch.full((6, 1024, tokens), 1e-4)
    for row in range(6):
        for number in range(3):
            where = (places[row] == number + 1)[:, None] & batch.words[row, number][None]
            right[row][where] = 1.0
    even = torch.full((6, 1024, tokens), 1 / tokens)
    assert float(grounding_loss(right, batch)) < 0.2 * float(grounding_loss(even, batch))


def test_a_batch_knows_the_nouns_and_colours_of_its_caption(shard):
    batch = collate(shard, np.arange(6), word_tokenizer(), np.random.default_rng(0))
    families = list(FAMILIES)
    for row, caption in enumerate(shard.captions):
        spans_of = {(number, what): caption[a:b] for number, what, a, b in shard.spans[row]}
        for number in range(3):
            noun, colour = int(batch.nouns[row, number]), int(batch.colours[row, number])
            thing = known()[noun] if noun >= 0 else None
            assert spans_of.get((number, "noun")) in (
                (thing.name, *thing.also) if thing else [None]
            )
            assert (families[colour] if colour >= 0 else None) == spans_of.get((number, "colour"))


def test_naming_costs_least_where_the_word_is_said_at_its_object(shard):
    batch = collate(shard, np.arange(6), word_tokenizer(), np.random.default_rng(0))
    masks = object_masks(batch.labels, 16).flatten(2)
    right = torch.zeros(6, 256, len(known()))
    for row, number in (batch.nouns >= 0).nonzero().tolist():
        right[row, masks[row, number] > 0, batch.nouns[row, number]] = 12.0
    every = torch.ones(6, dtype=torch.bool)
    assert float(said(right, batch.nouns, batch, every)) < 0.5
    assert float(said(right.roll(1, -1), batch.nouns, batch, every)) > 10
    even = said(torch.zeros_like(right), batch.nouns, batch, every)
    assert float(even) == pytest.approx(np.log(len(known())), rel=1e-4)
    assert float(said(right, batch.nouns, batch, ~every)) == 0


def test_few_scenes_of_one_object_are_used(shard):
    alone = {i for i in range(6) if len({span[0] for span in shard.spans[i]}) == 1}
    assert set(chosen(shard, 0.0, 0)) == set(range(6)) - alone
    assert len(chosen(shard, 1.0, 0)) == 6


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(shard, tmp_path):
    whole = two_steps_on(shard, tmp_path)
    whole.run_step()
    again = Trainer(RECIPE, shard, cpu=True)
    again.load(tmp_path)
    assert again.step == 2
    again.run_step()
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert same(again.average, whole.average)


@pytest.mark.slow
def test_a_broken_save_leaves_the_old_checkpoint(shard, tmp_path, monkeypatch):
    trainer = begun(shard)
    trainer.save(tmp_path)
    kept = (tmp_path / CHECKPOINT).read_bytes()

    def full(tensors, path, *rest):
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr("scribblediffusion.train.checkpoint.save_file", full)
    trainer.run_step()
    with pytest.raises(OSError, match="space"):
        trainer.save(tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing(shard):
    run = begun(shard)
    run.run_step()
    kept = {k: v.clone() for k, v in run.model.state_dict().items()}
    mean = {k: v.clone() for k, v in run.average.items()}
    shard = replace(shard, latents=np.full_like(shard.latents, np.nan))
    run.data = shard
    with pytest.raises(TrainingError, match="step 2 is nan"):
        run.run_step()
    assert run.whole
    assert run.step == 1
    assert same(run.model.state_dict(), kept)
    assert same(run.average, mean)


@pytest.mark.slow
def test_a_run_stopped_within_an_update_is_not_whole(shard, monkeypatch):
    run = begun(shard)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_follow", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run_step()
    assert not run.whole


@pytest.mark.slow
def test_a_leg_goes_on_where_its_schedule_was(shard, tmp_path, monkeypatch):
    """Ten minutes, of which the last half falls: killed after six, the rate is not at its peak."""
    scales, clock = [], iter(range(0, 6000, 60))
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(
        Trainer, "run_step", lambda self, scale: scales.append(scale) or (ones, losses)
    )
    ones = torch.ones(1)
    losses = Losses(ones, ones[0], ones[0], torch.ones(2), ones[0])
    first = begun(shard)
    for report in first.run(minutes=10, fall=0.5):
        if report.done >= 0.6:
            break
    first.save(tmp_path)
    again = Trainer(RECIPE, shard, cpu=True)
    again.load(tmp_path)
    list(again.run(minutes=10, fall=0.5))
    assert scales == pytest.approx([min(1, 2 * (1 - n / 10)) for n in range(10)])
    assert not list(again.run(minutes=10, fall=0.5))


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused(shard, tmp_path):
    begun(shard).save(tmp_path)
    with pytest.raises(SettingError, match=r"batch 2, now 1; rate 0\.001, now 0\.0012"):
        Trainer(replace(RECIPE, batch=1, rate=1.2e-3), shard, cpu=True).load(tmp_path)
    with pytest.raises(SettingError, match="seed 0, now 1"):
        Trainer(RECIPE, shard, seed=1, cpu=True).load(tmp_path)


@pytest.mark.long
@pytest.mark.slow
def test_a_new_leg_begins_from_the_average_alone(shard, tmp_path):
    last = two_steps_on(shard, tmp_path)
    leg = Trainer(replace(RECIPE, rate=5e-4), shard, seed=3, cpu=True)
    leg.begin(tmp_path)
    assert leg.step == leg.minutes == 0
    assert same(leg.model.state_dict(), last.average)
    assert same(leg.average, last.average)
    assert not leg.optimiser.state_dict()["state"]


def test_more_scenes_are_asked_for_than_there_are(shard):
    with pytest.raises(SettingError, match="a step takes 16"):
        Trainer(Recipe(), shard, cpu=True)


@pytest.mark.long
@pytest.mark.slow
def test_reports_say_how_it_goes(shard):
    reports = []
    for report in begun(shard).run(minutes=60):
        reports.append(report)
        if len(reports) == 3:
            break
    assert [r.step for r in reports] == [1, 2, 3]
    assert 0 < reports[-1].rate < 1000
    assert any(band > 0 for band in reports[-1].bands)
    assert "images/s" in str(reports[-1])


@pytest.mark.long
@pytest.mark.slow
def test_two_devices_train_one_model(shard, tmp_path):
    """Each sees scenes and noise of its own, and both end with the same weights."""
    shard.save(tmp_path / "shard.npz")
    names = [tmp_path / name for name in ("shard.npz", "found.npz", "checkpoint")]
    launched("two_devices.py", *names)
    found = np.load(tmp_path / "found.npz")
    assert len(np.unique(found["seen"])) == 4
    assert np.array_equal(found["sums"][0], found["sums"][1])
    assert np.array_equal(
        found["stopped"], [[6], [6]]
    )  # the second one's clock runs ten times as fast
    assert checkpoint.facts(tmp_path / "checkpoint")["step"] == 6

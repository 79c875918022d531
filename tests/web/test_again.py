"""Runs that are made again: as far as they went, with the model that made them, and no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from painted import make_trace
from scribbles import small_pipeline

from scribblediffusion.errors import InputError
from scribblediffusion.model.weights import shipped
from scribblediffusion.web.comparison import pack_comparison
from scribblediffusion.web.limits import Limits, Order
from scribblediffusion.web.sentences import ended
from scribblediffusion.web.studio import SHIPPED, Studio
from scribblediffusion.web.visitors import NOBODY
from scribblediffusion.web.worker import Finished

MODELS = {SHIPPED: None, "mine": "someone/mine"}


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path, models=MODELS, load=lambda _: small_pipeline())
    yield made
    made.close()


def test_a_stopped_run_is_made_again_as_far_as_it_went(studio: Studio) -> None:
    def made(order: Order):
        told = studio.submit(NOBODY, order).wait(60)
        assert isinstance(told, Finished), told
        return told.result

    order = Order("a red apple", None, 6, 3.0, 1.5, 7, stop_after=2)
    first, whole = made(order), made(dataclasses.replace(order, stop_after=None))
    again = studio.without(NOBODY, first.run.id, {"word": 1})
    assert again.stop_after == 2
    assert studio.without(NOBODY, whole.run.id, {"word": 1}).stop_after is None
    second = made(again)
    assert [s.index for s in second.trace.steps] == [0, 1]
    assert not second.trace.complete
    assert "without the word “red”, to step 2 of 6" in ended(second)["text"]
    same = made(dataclasses.replace(again, prompt="a red apple", note={}))
    assert np.array_equal(same.trace.picture, first.trace.picture)


def test_a_comparison_says_where_each_run_ended() -> None:
    whole = make_trace(steps=4)
    stopped, sooner = (
        dataclasses.replace(make_trace(steps=steps), complete=False) for steps in (3, 2)
    )
    told = pack_comparison(stopped, whole)["ends"]
    assert told == "The run before was stopped after step 3, the run after went to its end."
    assert (
        "after step 3, the run after was stopped after step 2"
        in (pack_comparison(stopped, sooner)["ends"])
    )
    assert pack_comparison(whole, whole)["ends"] == pack_comparison(stopped, stopped)["ends"] == ""


@pytest.mark.parametrize(
    ("made_by", "settings", "model"),
    [
        (f"ScribblePipeline {shipped()}", {}, SHIPPED),
        ("ScribblePipeline /elsewhere/scribblediffusion/model/weights", {}, SHIPPED),
        ("ScribblePipeline", {}, SHIPPED),
        ("ScribblePipeline /gone/model", {"model": None}, SHIPPED),
        ("ScribblePipeline someone/mine", {}, "mine"),
        ("ScribblePipeline /a/cache", {"model": "someone/mine"}, "mine"),
        ("ScribblePipeline /their/model", {}, None),
        ("ScribblePipeline", {"model": ["odd"]}, None),
        ("StableDiffusionPipeline some/model", {}, None),
        ("UNet2DConditionModel", {"model": None}, None),
        (None, {"model": None}, SHIPPED),
        (None, {}, None),
        ("ScribblePipeline", {"model": None, "pipeline": "FluxPipeline"}, None),
    ],
)
def test_a_run_is_made_again_with_its_own_model_alone(
    studio: Studio, made_by: str | None, settings: dict, model: str | None
) -> None:
    trace = dataclasses.replace(make_trace(steps=2), versions={"model": made_by})
    run = studio.gallery.add(trace, settings=settings)
    assert studio.model_of(run) == model
    assert studio.packed(run)["redo"] is (model is not None)
    if model is not None:
        assert studio.order_of(run).model == model
    else:
        with pytest.raises(InputError, match="not offered"):
            studio.order_of(run)


@pytest.mark.filterwarnings("ignore:to stay within the memory limit")
def test_a_run_that_takes_too_much_memory_keeps_the_mean_of_its_heads(tmp_path: Path) -> None:
    order = Order("a red apple", None, 4, 3.0, 1.5, 7, each_head=True)
    thin = Studio(tmp_path, limits=Limits(attention=1 << 25), load=lambda _: small_pipeline())
    try:
        told = thin.submit(NOBODY, order).wait(60)
        assert isinstance(told, Finished), told
        trace = told.result.trace
        assert trace.nbytes <= 1 << 25
        assert trace.heads == "mean"
        assert trace.thinned
    finally:
        thin.close()

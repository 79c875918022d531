"""Causal experiments on a small untrained pipeline, whose answers follow from the edits."""

import numpy as np
import pytest
import torch
from scribbles import small_pipeline

from scribblediffusion.errors import CaptureError, SettingError
from scribblediffusion.evaluate.causal import (
    ROWS,
    SwappedWords,
    experiment,
    final_latents,
    over_time,
)
from scribblediffusion.evaluate.edits import Edit
from scribblediffusion.sketch import Sketch

STEPS = {"num_inference_steps": 3}
PROMPT, OTHER = "a red apple", "an apple"


@pytest.fixture(scope="module")
def pipe():
    return small_pipeline()


@pytest.fixture(scope="module")
def sketch():
    ink = np.zeros((256, 256), np.float32)
    ink[60:66, 40:200] = ink[60:200, 40:46] = 1
    return Sketch(ink)


def test_an_edit_that_changes_nothing_changes_no_bit_and_a_real_one_does(pipe, sketch):
    none = Edit("red", "removed", (2,), PROMPT, sketch)
    real = Edit("red", "removed", (2,), OTHER, sketch)
    out = Edit("red", "knocked out", (2,), PROMPT, sketch, (2,))
    found = experiment(pipe, PROMPT, sketch, [none, real, out], seed=4, **STEPS)
    changes = [outcome.change.any() for outcome in found.outcomes]
    assert changes == [False, True, True]
    assert found.outcomes[0].explained.share is None
    assert found.outcomes[1].in_latents.share is not None
    assert found.trace.prompts[0].text == PROMPT
    assert found.outcomes[1].attention == pytest.approx(
        found.trace.word("red", view="attention").mean(), rel=1e-5
    )


def test_many_edits_take_several_calls_with_the_same_base(pipe, sketch):
    edits = [Edit("red", "removed", (2,), OTHER, sketch)] * (ROWS + 1)
    found = experiment(pipe, PROMPT, sketch, edits, seed=4, num_inference_steps=1)
    assert len(found.outcomes) == ROWS + 1
    first, last = found.outcomes[0], found.outcomes[-1]
    assert np.abs(first.picture.astype(int) - last.picture).max() <= 1
    with pytest.raises(SettingError):
        experiment(pipe, PROMPT, sketch, [], seed=4)


def test_swapped_at_every_step_is_the_other_prompt_and_at_none_the_own(pipe, sketch):
    own, other = (
        final_latents(pipe, [text] * 2, [sketch] * 2, 5, **STEPS) for text in (PROMPT, OTHER)
    )
    when = np.array([[False, True]] * 3)
    with SwappedWords(pipe, [OTHER] * 2, [sketch] * 2, when):
        mixed = final_latents(pipe, [PROMPT] * 2, [sketch] * 2, 5, **STEPS)
    assert torch.equal(mixed[0], own[0])
    assert torch.equal(mixed[1], other[1])
    assert torch.equal(final_latents(pipe, [PROMPT] * 2, [sketch] * 2, 5, **STEPS), own)


def test_swapped_from_a_step_on_leaves_the_steps_before(pipe, sketch):
    """Against the sampler itself: one step of the one prompt, then two of the other."""
    when = np.array([[False], [True], [True]])
    with SwappedWords(pipe, [OTHER], [sketch], when):
        generator = torch.Generator().manual_seed(5)
        steps = [
            step.latents for step in pipe.denoise(PROMPT, sketch, generator=generator, **STEPS)
        ]
    generator = torch.Generator().manual_seed(5)
    free = [s.latents for s in pipe.denoise(PROMPT, sketch, generator=generator, **STEPS)]
    assert torch.equal(steps[0], free[0])
    assert not torch.equal(steps[1], free[1])
    hooks = [h for h in pipe.unet._forward_pre_hooks.values() if "swap" in repr(h)]
    assert hooks == []


def test_over_time_begins_with_the_whole_removal_and_ends_with_little(pipe, sketch):
    edit = Edit("red", "removed", (2,), OTHER, sketch)
    found = over_time(pipe, PROMPT, edit, [0, 1, 2], seed=5, **STEPS)
    assert [(m.step, m.after) for m in found] == [
        (0, True),
        (1, True),
        (2, True),
        (1, False),
        (2, False),
    ]
    whole = experiment(pipe, PROMPT, sketch, [edit], seed=5, **STEPS).outcomes[0]
    assert found[0].effect == pytest.approx(whole.change.mean(), abs=0.05)
    assert found[0].effect > 0


def test_swapped_words_leave_no_hook_behind(pipe, sketch):
    swapped = SwappedWords(pipe, [OTHER], [sketch], np.array([[True]]))
    before = len(pipe.unet._forward_pre_hooks)
    with swapped, pytest.raises(CaptureError, match="open already"), swapped:
        pass
    assert len(pipe.unet._forward_pre_hooks) == before
    with swapped, pytest.raises(SettingError, match="1 steps"):
        final_latents(pipe, [PROMPT], [sketch], 5, num_inference_steps=2)
    assert len(pipe.unet._forward_pre_hooks) == before


def test_an_edit_s_own_controls_take_the_place_of_other_words(pipe, sketch):
    own = Edit("red", "removed", (2,), OTHER, sketch, controls=((3,),))
    none = Edit("red", "removed", (2,), OTHER, sketch, controls=())
    all_ = Edit("red", "removed", (2,), OTHER, sketch)
    found = experiment(pipe, PROMPT, sketch, [own, none, all_], seed=4, num_inference_steps=1)
    assert [o.explained.controls for o in found.outcomes] == [1, 0, 2]
    assert found.outcomes[1].explained.control is None


def test_tokens_are_knocked_out_at_chosen_steps_and_in_chosen_layers(pipe, sketch):
    out = Edit("red", "knocked out", (2,), PROMPT, sketch, (2,))

    def change(**where):
        found = experiment(pipe, PROMPT, sketch, [out], seed=4, **where, **STEPS)
        return found.outcomes[0].change.mean()

    whole = change()
    assert change(when=slice(2, None)) not in (0, whole)
    assert change(layers="up_blocks.*") not in (0, whole)

import math

import numpy as np
import pytest

from scribblediffusion.errors import PromptError, SettingError
from scribblediffusion.settings import MAX_GUIDANCE, check_prompts, check_settings, seeded


@pytest.mark.parametrize("dial", [math.nan, math.inf, -1, 10**400, True, "3", None])
def test_a_dial_out_of_range_is_named(dial):
    with pytest.raises(SettingError, match="guidance_scale"):
        check_settings(20, dial, 1.0)


@pytest.mark.parametrize("dial", [0, 1.5, MAX_GUIDANCE, np.float32(3), np.int64(2)])
def test_any_real_number_in_range_is_a_dial(dial):
    check_settings(20, 1.0, dial)


@pytest.mark.parametrize("prompt", ["caf\udce9", ["a cat", "caf\ud83d au lait"]])
def test_half_a_character_is_named_with_its_place(prompt):
    with pytest.raises(PromptError, match=r"character 4, '\\ud"):
        check_prompts(prompt)
    assert check_prompts("café \U0001f600") == ["café \U0001f600"]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", True, None])
def test_a_seed_that_no_generator_takes_is_named(seed):
    with pytest.raises(SettingError, match=r"seed .*a whole number from 0"):
        seeded(seed)
    assert seeded(2**64 - 2, 2)[1].initial_seed() == 2**64 - 1

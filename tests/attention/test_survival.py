"""Whatever goes wrong while looking, the run that is looked at goes on, bit for bit."""

from typing import Any

import pytest
import torch
from tiny_pipelines import latents_of, stable_diffusion, unet

from scribblediffusion.attention import encoders, taps
from scribblediffusion.attention.extractor import CaptureWarning, RealAttentionExtractor
from scribblediffusion.errors import CaptureError, UnknownWordError
from scribblediffusion.prompt import read

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = {"height": 32, "width": 24}
ERRORS = [RuntimeError, OSError, ImportError, AssertionError, KeyError, UnicodeDecodeError]


def raising(kind: type[BaseException]) -> Any:
    arguments = ("utf-8", b"x", 0, 1, "broken") if kind is UnicodeDecodeError else ("broken",)

    def broken(*_: Any, **__: Any) -> Any:
        raise kind(*arguments)

    return broken


@pytest.fixture(scope="module")
def pipe() -> Any:
    return stable_diffusion()


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("part", ["read", "texts_in_sight", "_states"])
def test_an_encoder_that_cannot_be_read_leaves_tokens_without_names(
    pipe: Any, part: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = latents_of(pipe, **SIZE)
    monkeypatch.setattr(encoders, part, raising(kind))
    extractor = RealAttentionExtractor(pipe)
    with pytest.warns(CaptureWarning, match="words of text_encoder could not be read"), extractor:
        assert torch.equal(latents_of(pipe, **SIZE), expected)
    trace = extractor.trace
    assert trace.batch == 1
    assert trace.audit.passed
    assert trace.token(3).sum() == pytest.approx(1, abs=1e-4)
    with pytest.raises(UnknownWordError, match="could not be asked"):
        trace.word("apple")


@pytest.mark.parametrize("kind", ERRORS)
def test_a_layer_that_cannot_be_read_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = unet()
    given = torch.randn(1, 4, 16, 12), 500, torch.randn(1, 7, 32)
    expected = model(*given).sample
    for part in ("_begins", "_ends"):
        with monkeypatch.context() as patch:
            patch.setattr(taps.Tap, part, raising(kind))
            with (
                pytest.raises(CaptureError, match=r"first reason was: .*broken"),
                RealAttentionExtractor(model),
            ):
                assert torch.equal(model(*given).sample, expected)
        assert not model.mid_block._forward_hooks


def test_a_number_outside_the_vocabulary_has_no_name(pipe: Any) -> None:
    reading = read(pipe.tokenizer, [193, 5, 100_000, 194])
    assert len(reading.pieces) == 4
    assert reading.pieces[2].text == ""

import numpy as np
import pytest
import torch

from scribblediffusion.model.place import grid
from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.train.batches import Words
from scribblediffusion.train.placing import CAPTIONS, places_said, placing_loss, teach_places


def words(count=1):
    """Of four tokens, token 1 names an object in the left half and token 2 one in the right."""
    labels = np.repeat([[[1] * 16 + [2] * 16]], 32, 1).repeat(count, 0).astype(np.uint8)
    named = torch.zeros(count, 3, 4, dtype=torch.bool)
    named[:, 0, 1] = named[:, 1, 2] = True
    none = torch.full((count, 3), -1)
    ids = torch.tensor([[0, 1, 2, 3]]).repeat(count, 1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return Words(ids=ids, mask=mask, words=named, nouns=none, colours=none, labels=labels)


def true_places():
    """`[1, 4, 16]`: the mean features of the left half at token 1, of the right half at token 2."""
    cells = grid(32, torch.zeros(1)).unflatten(0, (32, 32))
    said = torch.full((1, 4, 16), 9.0)  # what other tokens say does not count
    said[0, 1], said[0, 2] = cells[:, :16].mean((0, 1)), cells[:, 16:].mean((0, 1))
    return said


def test_placing_is_nothing_where_words_lie_on_their_objects():
    told = torch.ones(1, dtype=torch.bool)
    assert float(placing_loss(true_places(), words(), told)) == pytest.approx(0, abs=1e-12)
    swapped = true_places()[:, [0, 2, 1, 3]]
    assert float(placing_loss(swapped, words(), told)) > 0.1
    assert float(placing_loss(swapped, words(), ~told)) == 0


def test_an_object_that_cannot_be_seen_does_not_count():
    hidden = words()
    hidden.labels[hidden.labels == 2] = 0
    said = true_places()
    said[0, 2] = 9.0
    told = torch.ones(1, dtype=torch.bool)
    assert float(placing_loss(said, hidden, told)) == pytest.approx(0, abs=1e-12)


def test_the_encoder_learns_places_from_captions_alone():
    torch.manual_seed(0)
    encoder = PromptEncoder(vocabulary=4, table_width=8, width=32, depth=1, heads=4)
    encoder.set_table(torch.randn(4, 8))
    losses = list(teach_places(encoder, lambda step: words(CAPTIONS), steps=200, rate=3e-3))
    assert losses[-1] < 0.05 * losses[0]
    with torch.no_grad(), places_said(encoder) as said:
        encoder(words().ids, words().mask)
    assert float((said[0] - true_places())[0, 1:3].abs().max()) < 0.1
    assert not encoder.place._forward_hooks

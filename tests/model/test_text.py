import torch
from transformers import AutoTokenizer

from scribblediffusion.model.text import PromptEncoder
from scribblediffusion.model.tokens import tokenize
from scribblediffusion.model.weights import shipped


def encoder():
    torch.manual_seed(0)
    model = PromptEncoder(vocabulary=100, table_width=16, width=32, depth=2, heads=4).eval()
    model.set_table(torch.randn(100, 16))
    return model


def test_padding_takes_no_part():
    model, mask = encoder(), torch.tensor([[True] * 5 + [False] * 3])
    ids = torch.arange(8)[None]
    other = torch.where(mask, ids, 50)
    with torch.no_grad():
        a, b = model(ids, mask), model(other, mask)
    assert torch.equal(a[:, :5], b[:, :5])


def test_words_change_their_neighbours():
    model, mask = encoder(), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        a = model(torch.tensor([[1, 2, 3, 4]]), mask)
        b = model(torch.tensor([[1, 9, 3, 4]]), mask)
    assert not torch.allclose(a[:, 3], b[:, 3])


def test_the_table_keeps_meanings_in_eight_bits():
    torch.manual_seed(0)
    words = torch.randn(100, 16)
    model = encoder()
    model.set_table(words)
    back = model.table.float() * model.table_scale
    assert (back - words / words.std()).abs().max() < 0.02


def test_prompts_are_77_tokens_and_cut_at_the_end():
    tokenizer = AutoTokenizer.from_pretrained(shipped() / "tokenizer")
    ids, mask = tokenize(tokenizer, ["a red apple", "", "apple " * 200])
    assert ids.shape == mask.shape == (3, 77)
    assert mask.sum(1).tolist() == [5, 2, 77]
    assert tokenizer.convert_ids_to_tokens(ids[2])[-1] == "[SEP]"
    cropped, _ = tokenize(tokenizer, ["a red apple", ""], crop=True)
    assert cropped.shape == (2, 5)

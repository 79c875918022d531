import pytest
import torch
from transformers import AutoTokenizer

from scribblediffusion.model.place import fourier
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


def test_a_word_lies_nowhere_until_it_is_taught():
    model, mask = encoder(), torch.ones(1, 4, dtype=torch.bool)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        assert torch.equal(model(ids, mask), model.read(ids, mask))
        model.place.bias.fill_(1.0)
        moved = model(ids, mask) - model.read(ids, mask)
    assert torch.allclose(moved, model.map.sum(0).expand(1, 4, -1), atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "word", "there", "elsewhere"),
    [
        ("a red plug above a blue rocket", "red", (0.5, 0.25), (0.5, 0.75)),
        ("a red plug above a blue rocket", "rocket", (0.5, 0.75), (0.5, 0.25)),
        ("a red plug below a blue rocket", "red", (0.5, 0.75), (0.5, 0.25)),
        ("a cat to the left of a green umbrella", "green", (0.75, 0.5), (0.25, 0.5)),
        ("a cat right of a green umbrella", "green", (0.25, 0.5), (0.75, 0.5)),
        ("a cat, a pink hat and a dog from left to right", "cat", (0.17, 0.5), (0.83, 0.5)),
        ("from top to bottom: a cat, a pink hat and a dog", "dog", (0.5, 0.83), (0.5, 0.17)),
    ],
)
def test_the_shipped_words_lie_where_the_prompt_puts_them(prompt, word, there, elsewhere):
    model = PromptEncoder.from_pretrained(shipped() / "prompt_encoder").float()
    tokenizer = AutoTokenizer.from_pretrained(shipped() / "tokenizer")
    ids, mask = tokenize(tokenizer, [prompt], crop=True)
    said = model.place(model.read(ids, mask))[0, tokenizer.tokenize(prompt).index(word) + 1]
    x, y = torch.tensor([there, elsewhere]).T
    near, far = fourier(x, y) @ said
    assert near > far

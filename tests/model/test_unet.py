import subprocess
import sys

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from scribbles import small_unet

from scribblediffusion.model.place import FEATURES, PlaceEmbedding, fourier, orthonormal
from scribblediffusion.model.unet import SHIPPED, ScribbleUNet


def call(unet, sample, context, mask):
    with torch.no_grad():
        return unet(sample, torch.tensor(500.0), context, encoder_attention_mask=mask).sample


def test_masked_keys_have_no_influence_at_all():
    unet = small_unet()
    sample, context = torch.randn(2, 4, 32, 32), torch.randn(2, 154, 64)
    mask = torch.ones(2, 154)
    mask[:, 30:77] = 0
    mask[1, 100:110] = 0
    before = call(unet, sample, context, mask)
    changed = torch.where(mask[..., None] == 0, torch.tensor(7.0), context)
    assert torch.equal(before, call(unet, sample, changed, mask))
    visible = context.clone()
    visible[:, 0] += 1
    assert not torch.equal(before, call(unet, sample, visible, mask))


def test_leaving_masked_keys_out_is_the_same_attention():
    """Against diffusers' own processor over all keys, and bit for bit beside any other row."""
    unet = small_unet()
    sample, context = torch.randn(2, 4, 32, 32), torch.randn(2, 154, 64)
    mask = torch.zeros(2, 154)
    mask[0, :2] = mask[1, :9] = mask[1, 77:] = 1
    cropped = call(unet, sample, context, mask)
    beside = call(unet, sample[[1, 1]], context[[1, 1]], mask[[1, 1]])
    assert torch.equal(cropped[1], beside[0])
    unet.set_attn_processor(AttnProcessor2_0())
    assert torch.allclose(cropped, call(unet, sample, context, mask), atol=1e-5)


def test_a_row_without_any_key_is_what_diffusers_makes_of_it():
    unet = small_unet()
    sample, context, none = torch.randn(1, 4, 32, 32), torch.randn(1, 154, 64), torch.zeros(1, 154)
    ours = call(unet, sample, context, none)
    unet.set_attn_processor(AttnProcessor2_0())
    assert torch.allclose(ours, call(unet, sample, context, none), atol=1e-5)


def test_place_is_made_anew_for_another_map_size_or_dtype():
    place = PlaceEmbedding(32, seed=1)
    first = place(torch.zeros(1, 64, 32))
    assert place(torch.zeros(1, 16, 32)).shape == (1, 16, 32)
    assert place(torch.zeros(1, 64, 32, dtype=torch.float64)).dtype == torch.float64
    assert torch.equal(place(torch.zeros(1, 64, 32)), first)
    place.load_state_dict({"map": orthonormal(32, 2)})
    assert not torch.equal(place(torch.zeros(1, 64, 32)), first)


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_same_bits_at_any_row(batch):
    unet = small_unet().to(memory_format=torch.channels_last)
    sample = torch.randn(1, 4, 32, 32).repeat(batch, 1, 1, 1)
    context = torch.randn(1, 154, 64).repeat(batch, 1, 1)
    out = call(unet, sample.contiguous(memory_format=torch.channels_last), context,
               torch.ones(batch, 154))  # fmt: skip
    assert all(torch.equal(out[0], row) for row in out[1:])


@pytest.mark.long
def test_saved_and_loaded_in_a_new_process_gives_the_same_bits(tmp_path):
    unet = small_unet()
    unet.save_pretrained(tmp_path / "unet")
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(1, 4, 32, 32, generator=generator)
    context = torch.randn(1, 154, 64, generator=generator)
    torch.set_num_threads(1)
    expected = call(unet, sample, context, torch.ones(1, 154))
    script = f"""
import torch; torch.set_num_threads(1)
from scribblediffusion.model.unet import ScribbleUNet
g = torch.Generator().manual_seed(3)
s, c = torch.randn(1, 4, 32, 32, generator=g), torch.randn(1, 154, 64, generator=g)
u = ScribbleUNet.from_pretrained({str(tmp_path / "unet")!r}, low_cpu_mem_usage=False).eval()
with torch.no_grad():
    out = u(s, torch.tensor(500.0), c, encoder_attention_mask=torch.ones(1, 154)).sample
torch.save(out, {str(tmp_path / "out.pt")!r})
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)
    assert torch.equal(expected, torch.load(tmp_path / "out.pt", weights_only=True))


def test_place_maps_are_orthonormal_and_saved():
    unet = small_unet()
    maps = {k: v for k, v in unet.state_dict().items() if k.endswith("pos_embed.map")}
    assert len(maps) == len([n for n, _ in unet.named_modules() if n.endswith("attn2")])
    for place in maps.values():
        assert torch.allclose(place @ place.T, torch.eye(FEATURES), atol=1e-5)


def test_place_product_is_largest_at_the_same_place():
    x, y = torch.rand(50), torch.rand(50)
    features = fourier(x, y)
    product = features @ features.T
    assert (product.argmax(1) == torch.arange(50)).all()
    assert torch.allclose(product.diagonal(), torch.tensor(8.0))


def test_half_of_the_heads_begin_at_their_own_place():
    """A key that carries the place of cell i gets most weight from the query at cell i."""
    unet = small_unet()
    block = unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0")
    centres = (torch.arange(8) + 0.5) / 8
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    keys = 3 * fourier(x.flatten(), y.flatten()) @ orthonormal(64, 7)
    queries = block.pos_embed(torch.zeros(1, 64, 64))[0]
    q = block.attn2.to_q(queries).unflatten(-1, (8, -1))[:, :4]
    k = block.attn2.to_k(keys).unflatten(-1, (8, -1))[:, :4]
    nearest = torch.einsum("qhd,khd->hqk", q, k).argmax(-1)
    assert (nearest == torch.arange(64)).float().mean() > 0.95


def test_place_needs_a_square():
    with pytest.raises(ValueError, match="square"):
        PlaceEmbedding(32)(torch.zeros(1, 10, 32))


def test_the_shipped_layout_has_eight_heads_and_a_32_by_32_layer():
    unet = ScribbleUNet(**SHIPPED)
    heads = {m.heads for n, m in unet.named_modules() if n.endswith(("attn1", "attn2"))}
    assert heads == {8}
    block = unet.get_submodule("up_blocks.2.attentions.0.transformer_blocks.0")
    assert block.only_cross_attention

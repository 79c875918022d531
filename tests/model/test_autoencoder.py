from types import SimpleNamespace

import torch

from scribblediffusion.model.autoencoder import ScribbleAutoencoder


def test_shapes_and_standardised_latents():
    torch.manual_seed(0)
    model = ScribbleAutoencoder(
        encoder_fine=8, encoder_coarse=16, decoder_coarse=16, decoder_fine=8
    )
    model.latent_mean.fill_(0.5)
    model.latent_std.fill_(2.0)
    pictures = torch.rand(2, 3, 256, 256) * 2 - 1
    latents = model.encode(pictures)
    assert latents.shape == (2, 4, 32, 32)
    assert torch.allclose(latents * 2 + 0.5, model.encode_raw(pictures), atol=1e-6)
    assert model.encode_raw(100 * pictures).abs().max() <= 3.0
    assert torch.equal(model(pictures), model.decode(latents))
    assert model(pictures).shape == pictures.shape


def test_weights_that_were_offloaded_come_back_for_all_that_is_called():
    """`forward` has accelerate's hook of itself; the pipeline calls the others."""
    model = ScribbleAutoencoder(
        encoder_fine=8, encoder_coarse=16, decoder_coarse=16, decoder_fine=8
    )
    asked = []
    model._hf_hook = SimpleNamespace(pre_forward=asked.append)
    model.decode(latents := model.encode(torch.zeros(1, 3, 64, 64)))
    model.preview(latents)
    assert asked == [model] * 3

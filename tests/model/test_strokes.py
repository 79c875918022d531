import torch
from torch.nn import functional as F

from scribblediffusion.model.strokes import SketchEncoder
from scribblediffusion.sketch import REGIONS


def encoder():
    torch.manual_seed(0)
    return SketchEncoder(width=32, channels=8, hidden=32).eval()


def test_a_token_sees_its_region_and_nothing_else():
    """Ink in one pixel changes exactly the tokens whose regions hold that pixel."""
    model = encoder()
    blank = torch.zeros(1, 1, 256, 256)
    for x, y in ((0, 0), (100, 31), (85, 170), (128, 127), (255, 255)):
        marked = blank.clone()
        marked[0, 0, y, x] = 1
        with torch.no_grad():
            changed = (model(marked) != model(blank)).any(-1)[0]
        boxes = [region.box() for region in REGIONS]
        holds = [left <= x < right and top <= y < bottom for left, top, right, bottom in boxes]
        assert changed.tolist() == holds


def test_one_token_for_each_region_in_any_batch():
    model = encoder()
    ink = (torch.rand(3, 1, 256, 256) > 0.9).float()
    with torch.no_grad():
        together, alone = model(ink), torch.cat([model(one[None]) for one in ink])
    assert together.shape == (3, 77, 32)
    assert torch.allclose(together, alone, atol=1e-5)


class OnMac(torch.Tensor):
    """A tensor that says it lies on a Mac's graphics chip."""

    @property
    def device(self):
        return torch.device("mps")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_a_chip_that_pools_only_what_divides_gives_the_same_tokens(monkeypatch):
    pool = F.adaptive_avg_pool2d

    def picky(x, side):
        assert not isinstance(x, OnMac) or x.shape[-1] % side == x.shape[-2] % side == 0
        return pool(x, side)

    model = encoder()
    ink = (torch.rand(2, 1, 256, 256) > 0.9).float()
    with torch.no_grad():
        tokens = model(ink)
        monkeypatch.setattr(F, "adaptive_avg_pool2d", picky)
        on_mac = model(ink.as_subclass(OnMac))
    assert isinstance(on_mac, OnMac)
    assert torch.equal(on_mac.cpu(), tokens)

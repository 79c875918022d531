"""Where text was written in a picture, so that a test can tell whether it stands well."""

from scribblediffusion.view import comparison, evolution, heatmap
from scribblediffusion.view.typeset import fitted, readable, width, write


class Written:
    """Every line that the frames' modules write, as (left, top, right, bottom, text)."""

    def __init__(self, monkeypatch):
        self.lines = []
        for module in (comparison, evolution, heatmap):
            monkeypatch.setattr(module, "write", self._write)

    def _write(self, draw, at, text, size, colour, *, anchor="la", room=None):
        line = readable(text) if room is None else fitted(text, size, room)
        long = width(line, size)
        left = at[0] - {"l": 0, "m": 0.5, "r": 1}[anchor[0]] * long
        self.lines.append((left, at[1], left + long, at[1] + size, line))
        write(draw, at, text, size, colour, anchor=anchor, room=room)

    def stands_well(self, page):
        """Nothing is cut at the edge, and nothing lies over anything else."""
        assert self.lines
        for i, (left, top, right, bottom, text) in enumerate(self.lines):
            assert left >= 0, text
            assert top >= 0, text
            assert right <= page.width, text
            assert bottom <= page.height, text
            for other in self.lines[:i]:
                apart = right <= other[0] or other[2] <= left
                apart = apart or bottom <= other[1] or other[3] <= top
                assert apart, (text, other[4])
        return [line[4] for line in self.lines]

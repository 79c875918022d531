"""From any image to a `Sketch`, and the 77 regions that a sketch is read in.

The regions are a pyramid over the square sketch: 8×8, then 3×3, then 2×2, each row by row.
Region `i` is token `i` of the sketch stream and key `77 + i` of the shipped model.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The grids of the pyramid, in token order.
LEVELS = (8, 3, 2)
#: Side of a prepared sketch in pixels.
SIZE = 256


@dataclass(frozen=True, order=True)
class Region:
    """One place of the sketch: cell (row, column) of the level × level grid."""

    level: int
    row: int
    column: int

    @property
    def index(self) -> int:
        """0–76: the position in the sketch stream."""
        before = sum(n * n for n in LEVELS[: LEVELS.index(self.level)])
        return before + self.row * self.level + self.column

    def box(self, size: int = SIZE) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels of a `size` × `size` picture, right and bottom open.

        The boxes of one level tile the picture: every pixel lies in exactly one of them.
        """
        edge = [round(i * size / self.level) for i in range(self.level + 1)]
        return edge[self.column], edge[self.row], edge[self.column + 1], edge[self.row + 1]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle, in 0…1 from the upper left."""
        return (self.column + 0.5) / self.level, (self.row + 0.5) / self.level


#: All 77 regions in token order: 64 fine, 9 middle, 4 coarse.
REGIONS: tuple[Region, ...] = tuple(
    Region(n, row, column) for n in LEVELS for row in range(n) for column in range(n)
)

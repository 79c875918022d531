"""Drawn cases with known answers, at several widths and directions."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scribblediffusion.analysis.regions import describe_regions, place_in_words
from scribblediffusion.errors import SketchError
from scribblediffusion.sketch import REGIONS, Region

CENTRE = Region(3, 1, 1)


def draw(*strokes, width: int = 5) -> np.ndarray:
    """Ink of strokes, each a list of points, with round ends."""
    image = Image.new("L", (768, 768))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        points = [(3 * x, 3 * y) for x, y in stroke]
        pen.line(points, fill=255, width=3 * width, joint="curve")
        for x, y in (points[0], points[-1]):
            r = 1.5 * width
            pen.ellipse([x - r, y - r, x + r, y + r], fill=255)
    return np.asarray(image.resize((256, 256), Image.Resampling.BOX), np.float32) / 255


def arc(x, y, radius, start, end):
    angle = np.radians(np.linspace(start, end, 90))
    return [(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angle]


def ray(angle, length=100.0):
    """A point seen from the middle; 0 is right, 90 is up."""
    a = np.radians(angle)
    return 128 + length * np.cos(a), 128 - length * np.sin(a)


def described(ink, region=CENTRE):
    return describe_regions(ink, [region])[0]


HATCHING = [[(40 + 8 * i, 40), (20 + 8 * i, 120)] for i in range(22)]
GRID = [[(90 + 8 * i, 90), (90 + 8 * i, 166)] for i in range(10)]
GRID += [[(90, 90 + 8 * i), (166, 90 + 8 * i)] for i in range(10)]

CASES = {
    "horizontal": ([[(10, 128), (246, 128)]], "a straight horizontal line, 6 % ink"),
    "vertical": ([[(128, 10), (128, 246)]], "a straight vertical line, 6 % ink"),
    "rising": ([[(20, 236), (236, 20)]], "a straight diagonal line rising to the right, 8 % ink"),
    "falling": ([[(20, 20), (236, 236)]], "a straight diagonal line falling to the right, 8 % ink"),
    "L": ([[(128, 20), (128, 128), (240, 128)]], "a corner, 6 % ink"),
    "V": ([[(108, 40), (128, 150), (148, 40)]], "a sharp corner, 9 % ink"),
    "T": ([[(20, 128), (236, 128)], [(128, 128), (128, 240)]], "a T-shaped crossing, 9 % ink"),
    "Y": (
        [[(128, 128), (128, 240)], [(128, 128), (60, 40)], [(128, 128), (196, 40)]],
        "a Y-shaped crossing, 10 % ink",
    ),
    "X": ([[(20, 20), (236, 236)], [(20, 236), (236, 20)]], "a crossing of two lines, 16 % ink"),
    "plus": (
        [[(20, 128), (236, 128)], [(128, 20), (128, 236)]],
        "a crossing of two lines, 11 % ink",
    ),
    "circle": ([arc(128, 128, 25, 0, 360)], "a closed round shape, 10 % ink"),
    "triangle": (
        [[(100, 150), (156, 150), (128, 100), (100, 150)]],
        "a closed shape with three corners, 11 % ink",
    ),
    "arch": ([arc(128, 150, 40, 200, 340)], "a curve bending down, 7 % ink"),
    "cup": ([arc(128, 100, 40, 20, 160)], "a curve bending up, 7 % ink"),
    "left bracket": ([arc(150, 128, 40, 110, 250)], "a curve bending right, 7 % ink"),
    "wave": (
        [[(90 + i, 128 + 12 * np.sin(i / 76 * 2 * np.pi)) for i in range(77)]],
        "a winding curve, 6 % ink",
    ),
    "end": ([[(20, 128), (128, 128)]], "a straight horizontal line and an end, 3 % ink"),
    "two lines": (
        [[(20, 110), (236, 110)], [(20, 140), (236, 140)]],
        "two straight horizontal lines, 12 % ink",
    ),
    "dot": ([[(128, 128), (129, 128)]], "a dot, under 1 % ink"),
    "nothing": ([], "no ink"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_known_drawings(name):
    strokes, words = CASES[name]
    assert str(described(draw(*strokes))) == f"centre: {words}"


def test_hatching_by_lines_by_both_ways_and_by_one_long_zigzag():
    top = Region(3, 0, 1)
    assert described(draw(*HATCHING, width=2), top).kinds == ("hatching",)
    assert "dense hatching, vertical lines" in str(described(draw(*HATCHING, width=2), top))
    assert "dense cross-hatching" in str(described(draw(*GRID, width=2)))
    zigzag = [(90 + 5 * i, 90 if i % 2 else 166) for i in range(15)]
    assert described(draw(zigzag, width=2)).kinds == ("hatching",)


@pytest.mark.parametrize("spacing", [6, 8, 10])
@pytest.mark.parametrize(("first", "second"), [(0, 90), (20, 110), (45, 135), (54, 126), (10, 60)])
def test_cross_hatching_in_any_two_directions(spacing, first, second):
    lines = []
    for angle in (first, second):
        (x, y), (nx, ny) = (np.subtract(ray(a, 1), 128) for a in (angle, angle + 90))
        for k in range(-14, 15):
            cx, cy = 128 + k * spacing * nx, 128 + k * spacing * ny
            lines.append([(cx - 90 * x, cy - 90 * y), (cx + 90 * x, cy + 90 * y)])
    assert str(described(draw(*lines, width=2))).startswith("centre: dense cross-hatching")


def patch(spacing, angle, half):
    """Lines of one direction in a square patch around the middle."""
    (x, y), (nx, ny) = (np.subtract(ray(a, 1), 128) for a in (angle, angle + 90))
    middles = [(128 + k * nx, 128 + k * ny) for k in np.arange(-half, half + 0.5, spacing)]
    return [[(cx - half * x, cy - half * y), (cx + half * x, cy + half * y)] for cx, cy in middles]


WAYS = {0: "horizontal", 34: "diagonal", 45: "diagonal", 90: "vertical", 124: "diagonal"}


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("half", [24, 36, 42, 120])
@pytest.mark.parametrize("spacing", [7, 8, 9, 10])
@pytest.mark.parametrize("angle", WAYS)
def test_lines_as_close_as_the_limit_are_hatching_and_wider_ones_are_lines(
    width, half, spacing, angle
):
    found = described(draw(*patch(spacing, angle, half), width=width))
    assert found.what.startswith(f"dense hatching, {WAYS[angle]} lines")
    wider = described(draw(*patch(spacing + 5, angle, half), width=width))
    assert "straight line" in wider.kinds


@pytest.mark.parametrize("half", [24, 42, 60])
@pytest.mark.parametrize(
    ("spacing", "width"), [(5, 2), (6, 2), (6, 3), (6, 4), (7, 4), (8, 4), (10, 4)]
)
def test_cross_hatching_with_little_paper_left_is_no_filled_area(spacing, width, half):
    for angle in (0, 34, 45):
        lines = patch(spacing, angle, half) + patch(spacing, angle + 90, half)
        assert described(draw(*lines, width=width)).what.startswith("dense cross-hatching")


def test_a_filled_area_may_have_some_gaps():
    ink = draw([(128, 128), (129, 128)], width=50)
    for x, y in np.random.default_rng(1).integers(112, 145, (10, 2)):
        ink[y : y + 2, x : x + 2] = 0
    assert described(ink).kinds == ("filled",)


@pytest.mark.parametrize("width", [7, 12])
def test_nothing_crosses_in_a_filled_area(width):
    image = Image.new("L", (512, 512))
    for x in range(140, 380, 20):
        points = [x - 78, 336, x + 78, 180]
        ImageDraw.Draw(image).line(points, fill=255, width=2 * width, joint="curve")
    ink = np.asarray(image.resize((256, 256), Image.Resampling.LANCZOS), np.float32) / 255
    assert described(ink).kinds == ("filled",)


@pytest.mark.parametrize("spacing", [5, 8, 10])
@pytest.mark.parametrize("angle", WAYS)
def test_three_lines_are_no_hatching(spacing, angle):
    lines = patch(spacing, angle, 60)
    three = lines[len(lines) // 2 - 1 : len(lines) // 2 + 2]
    assert described(draw(*three, width=2)).what.startswith("three straight")


def grid(every, width=1):
    ink = np.zeros((256, 256), np.float32)
    for start in range(width):
        ink[start::every] = ink[:, start::every] = 1
    return ink


def squares(side):
    row, column = np.indices((256, 256)) // side
    return ((row + column) % 2).astype(np.float32)


def speckled(share):
    return (np.random.default_rng(0).random((256, 256)) < share).astype(np.float32)


DENSE = {
    "grid 16": (lambda: grid(16, 2), "dense cross-hatching"),
    "grid 12": (lambda: grid(12, 2), "dense cross-hatching"),
    "grid 8": (lambda: grid(8, 2), "dense cross-hatching"),
    "grid 6": (lambda: grid(6), "dense cross-hatching"),
    "grid 5": (lambda: grid(5), "dense cross-hatching"),
    "squares 8": (lambda: squares(8), "dense cross-hatching"),
    "squares 4": (lambda: squares(4), "dense cross-hatching"),
    "dots": (lambda: np.outer(*[np.arange(256) % 4 == 0] * 2).astype(float), "many dots"),
    "lines": (lambda: np.tile(np.arange(256) % 4 == 0, (256, 1)).astype(float),
              "dense hatching, vertical lines"),
    "5 %": (lambda: speckled(0.05), "many dots"),
    "30 %": (lambda: speckled(0.3), "dense scribbling"),
    "50 %": (lambda: speckled(0.5), "dense scribbling"),
    "60 %": (lambda: speckled(0.6), "dense scribbling"),
}  # fmt: skip


@pytest.mark.parametrize("name", DENSE)
def test_the_densest_drawings_are_described_at_once(name):
    made, words = DENSE[name]
    ink, begin = made(), time.process_time()
    found = describe_regions(ink)
    assert time.process_time() - begin < 1.5  # a fifth of it, on a machine with nothing else to do
    told = [words in str(d) for d in found]
    assert np.mean(told) > 0.9
    assert told[REGIONS.index(CENTRE)]


def test_a_line_that_runs_into_a_thicket_has_no_end_there():
    ink = draw([(10, 200), (128, 200)])
    ink[160:250, 128:240] = speckled(0.4)[160:250, 128:240]
    assert described(ink, Region(8, 6, 2)).kinds == ("straight line",)
    assert described(ink, Region(8, 6, 5)).what.startswith("dense scribbling")


def test_ten_of_a_kind_are_a_number():
    lines = [[(10 + 12 * i, 20 + 40 * row), (10 + 12 * i, 40 + 40 * row)]
             for i in range(5) for row in range(2)]  # fmt: skip
    found = described(draw(*lines, width=2), Region(2, 0, 0))
    assert found.what.startswith("10 straight vertical lines")


def test_scribbling_in_all_directions_is_told_from_hatching():
    rng = np.random.default_rng(2)
    ends = [(ray(a, 60), ray(a + rng.uniform(120, 240), 60)) for a in range(0, 360, 15)]
    assert "dense scribbling" in str(described(draw(*ends, width=2)))


@pytest.mark.parametrize("radius", [9, 12, 16])
@pytest.mark.parametrize("width", [2, 4, 6])
def test_rings_are_round_and_small_squares_are_not(radius, width):
    ring = described(draw(arc(128.3, 127.6, radius, 0, 360), width=width))
    assert ring.features[0].phrase == "a closed round shape"
    for turn in (0, 20, 45):
        square = [ray(turn + 90 * k, 1.3 * radius) for k in range(5)]
        assert described(draw(square, width=width)).features[0].phrase != "a closed round shape"


def test_another_size_is_read_as_the_same_drawing_and_faint_ink_is_no_line():
    line = draw([(10, 128), (246, 128)])
    large = np.kron(line, np.ones((2, 2), np.float32))
    assert str(described(large)) == str(described(line))
    assert "straight horizontal line" in str(described(line[::4, ::4]))
    assert str(described(np.full((256, 256), 0.2))) == "centre: faint ink, no line, 20 % ink"


def test_a_filled_disc_is_a_filled_area_and_a_ring_is_not():
    assert described(draw([(128, 128), (129, 128)], width=50)).kinds == ("filled",)
    assert described(draw(arc(128, 128, 28, 0, 360), width=14)).kinds == ("closed shape",)


@pytest.mark.parametrize("width", [2, 5, 9])
@pytest.mark.parametrize("angle", range(0, 180, 20))
def test_a_line_is_straight_in_every_direction(width, angle):
    found = described(draw([ray(angle, 110), ray(angle, -110)], width=width))
    assert found.kinds == ("straight line",)


@pytest.mark.parametrize("width", [2, 5, 9])
@pytest.mark.parametrize("turn", [75, 90, 120])
@pytest.mark.parametrize("angle", [10, 55, 200])
def test_corners_and_crossings_in_every_direction(width, turn, angle):
    corner = [ray(angle), (128, 128), ray(angle + 180 - turn)]
    assert described(draw(corner, width=width)).kinds == ("corner",)
    lines = [[ray(angle), ray(angle + 180)], [ray(angle + turn), ray(angle + turn + 180)]]
    assert "a crossing of two lines" in str(described(draw(*lines, width=width)))


def polygon(corners, radius, turn):
    return [ray(turn + 360 * k / corners, radius) for k in range(corners + 1)]


@pytest.mark.parametrize("width", [3, 8, 11, 12, 14])
@pytest.mark.parametrize("radius", [28, 40])
@pytest.mark.parametrize(("corners", "words"), [(3, "three"), (4, "four")])
def test_a_broad_pen_loses_no_corner(width, radius, corners, words):
    for turn in (0, 23, 45, 70):
        found = described(draw(polygon(corners, radius, turn), width=width)).features
        assert [f.phrase for f in found] == [f"a closed shape with {words} corners"]


@pytest.mark.parametrize("width", [3, 10, 12])
@pytest.mark.parametrize("side", [30, 40, 56, 70])
def test_an_upright_square_is_not_round(width, side):
    image = Image.new("L", (512, 512))
    box = [256 - side, 256 - side, 256 + side, 256 + side]
    ImageDraw.Draw(image).rectangle(box, outline=255, width=2 * width)
    ink = np.asarray(image.resize((256, 256), Image.Resampling.BOX), np.float32) / 255
    assert described(ink).what.startswith("a closed shape with four corners,")


@pytest.mark.parametrize("width", [3, 5, 8, 12])
@pytest.mark.parametrize("radius", [24, 30, 40])
@pytest.mark.parametrize("corners", [5, 6])
def test_of_a_shape_some_of_whose_turns_are_missed_no_number_is_told(width, radius, corners):
    for turn in range(0, 360 // corners, 7):
        found = described(draw(polygon(corners, radius, turn), width=width)).features
        assert [f.phrase for f in found] == ["a closed shape"]


@pytest.mark.parametrize("width", [2, 5, 8, 11, 14])
@pytest.mark.parametrize(("long", "short"), [(30, 30), (36, 36), (36, 31)])
def test_circles_and_ellipses_are_round_with_any_pen(width, long, short):
    for turn in (0, 40, 90):
        angle, way = np.radians(np.linspace(0, 360, 90)), np.exp(1j * np.radians(turn))
        points = 128 + 128j + way * (long * np.cos(angle) + 1j * short * np.sin(angle))
        ink = draw([(p.real, p.imag) for p in points], width=width)
        assert described(ink).features[0].phrase == "a closed round shape"


@pytest.mark.parametrize("width", [2, 5])
@pytest.mark.parametrize("radius", [8, 14, 20, 30])
def test_circles_have_no_corners_and_half_of_one_is_a_curve(width, radius):
    assert described(draw(arc(128, 128, radius, 0, 360), width=width)).kinds == ("closed shape",)
    if radius >= 20:
        half = described(draw(arc(128, 140, radius, 180, 360), width=width))
        assert half.features[0].phrase == "a curve bending down"


def test_a_line_that_leaves_a_region_has_no_end_there_and_a_cut_circle_is_not_closed():
    line = draw([(20, 112), (112, 112)])
    assert "end" in described(line, Region(8, 3, 3)).kinds
    assert described(line, Region(8, 3, 2)).kinds == ("straight line",)
    ring = draw(arc(128, 128, 90, 0, 360))
    assert all("closed shape" not in d.kinds for d in describe_regions(ring))


def test_ink_is_the_share_of_the_area_and_describing_is_for_all_regions_in_order():
    ink = np.zeros((256, 256), np.float32)
    ink[:32, :16] = 0.5
    found = describe_regions(ink)
    assert [d.region for d in found] == list(REGIONS)
    assert found[0].ink == pytest.approx(0.25)
    assert found[1].what == "no ink"
    assert found[REGIONS.index(Region(2, 0, 0))].ink == pytest.approx(0.25 / 16)


def test_places_in_words():
    words = {place_in_words(r) for r in REGIONS if r.level == 3}
    assert len(words) == 9
    assert place_in_words(Region(8, 0, 7)) == "upper right"
    assert place_in_words(Region(8, 3, 4)) == "centre"


@pytest.mark.parametrize(
    "ink", [np.zeros((4, 5)), np.full((64, 64), 255.0), np.full((64, 64), np.nan), np.zeros(9)]
)
def test_what_is_no_drawing_is_refused_by_name(ink):
    with pytest.raises(SketchError):
        describe_regions(ink)

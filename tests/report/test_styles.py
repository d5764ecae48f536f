"""Strategies are told apart, also by readers who do not see all colours; what is drawn stands out from the page."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest

from dropout_lab.report.page import HERE
from dropout_lab.report.styles import COLORS, styles

_, LIGHT, DARK = (HERE / "page.css").read_text().split(":root {", 2)
SCHEMES = {"light": LIGHT, "dark": DARK}
# What a reader sees who lacks one kind of cone: Machado, Oliveira and Fernandes 2009, table 1 at full severity.
READERS = {
    "all cones": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def colours(scheme):
    """Name -> linear red, green and blue."""
    found = {}
    for name, text in re.findall(r"--(\w+): #(\w{6})", SCHEMES[scheme].partition("}")[0]):
        parts = np.array([int(text[n : n + 2], 16) / 255 for n in (0, 2, 4)])
        found[name] = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return found


def contrast(one, other):
    """As WCAG defines it."""
    low, high = sorted(np.dot(XYZ[1], parts) + 0.05 for parts in (one, other))
    return high / low


def lab(linear):
    x, y, z = np.cbrt(XYZ @ np.clip(linear, 0, 1) / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lines_and_text_stand_out_from_the_page(scheme):
    """3 and 4.5 are what WCAG asks of graphics and of text."""
    found = colours(scheme)
    assert min(contrast(found[name], found["page"]) for name in (*COLORS, "ink", "accent")) >= 3
    assert min(contrast(found[name], found["page"]) for name in ("text", "muted")) >= 4.5


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_are_told_apart(scheme, reader):
    """A step of 2.3 in CIELAB is just seen; lines are thin and apart, so ask for four times as much."""
    found = colours(scheme)
    seen = [lab(READERS[reader] @ found[name]) for name in (*COLORS, "ink")]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 10


def test_no_two_of_42_strategies_share_colour_and_dash():
    strategies = [SimpleNamespace(name=str(n), kind="inverted", base="inverted") for n in range(42)]
    drawn = styles([SimpleNamespace(strategy=strategy, seeds=1) for strategy in strategies])
    assert len({(one["color"], one["dash"] % 6) for one in drawn.values()}) == 42

"""Laws of the picture of a look: it says what it shows, and a row has one colour scale."""

import pytest
import torch
from looks import subject
from torch import nn

from dropout_lab.look.picture import draw
from dropout_lab.look.subject import Subject
from dropout_lab.look.views import CONDITIONS, look_at
from dropout_lab.look.words import RANDOM


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title, axes.yaxis.label]]


def test_the_picture_says_what_it_shows():
    look = look_at(subject(), 0.5)
    said = texts(draw(look))
    for expected in ("net looking at noise", RANDOM, *CONDITIONS, "16 of 24 maps of 8×8", "16 of 40 maps of 8×8"):
        assert any(expected in text for text in said), expected
    of_trained = Subject(**{**vars(look.subject), "trained": True})
    said = texts(draw(look_at(of_trained, 0.5)))
    assert not any("RANDOM" in text for text in said)


def test_all_maps_of_a_row_share_one_colour_scale_that_begins_at_zero():
    figure = draw(look_at(subject(), 0.5))
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.title.get_text()]
    rows = [limits[:4], limits[4:]]
    assert all(len(set(row)) == 1 and row[0][0] == 0 < row[0][1] for row in rows)


def test_signed_maps_have_zero_in_the_middle_of_their_colours():
    figure = draw(look_at(subject(), 0.5, ["00_first"]))
    (low, high), *_ = [axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.title.get_text()]
    assert low == -high


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((5,), "5 units"),
        ((16, 6), "6 maps of 4×4"),  # the tokens of a transformer
        ((17, 6), "6 maps of 4×4"),  # behind a class token
        ((18, 6), "108 units"),
        ((3, 3, 20), "16 of 20 maps of 3×3"),
        ((2, 1, 1), "2 units"),
    ],
)
@pytest.mark.slow
def test_outputs_of_any_shape_can_be_drawn(shape, shown):
    class Shaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.head = nn.GELU(), nn.Linear(torch.Size(shape).numel(), 7)

        def forward(self, x):
            return self.head(self.act(x).flatten(1))

    seen = subject(Shaped())
    figure = draw(look_at(Subject(**{**vars(seen), "x": torch.randn(1, *shape)}), 0.5))
    assert [text.partition("\n")[2] for text in texts(figure) if "(GELU)" in text] == [shown]

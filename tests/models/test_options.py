"""Options of models that a library makes: those that it takes, and one line about the others."""

import re

import pytest
from torch import nn

from dropout_lab.models.options import choices, require_chosen, telling_options


class Net(nn.Module):
    def __init__(self, blocks, classes=3, rate=0.0, *, wide=False, **others):
        super().__init__()


def net(*, pretrained=False, **options) -> Net:
    return Net(2, **options)


FREE = choices(net, ["classes"])


def test_what_can_be_chosen_has_a_default_and_is_not_given():
    assert FREE == ["rate", "wide"]
    require_chosen("net", FREE, net, FREE)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rat", "model.rat: net takes no such key; did you mean 'rate'?"),
        ("classes", "model.classes: net takes no such key; allowed: rate, wide"),
        ("others", "model.others: net takes no such key; allowed: rate, wide"),
        ("pretrained", "model.pretrained: net takes no such key; allowed: rate, wide"),
        ("blocks", "model.blocks: the library settles that for net; allowed: rate, wide"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_a_class_ignores_it(option, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_chosen("net", [option], net, FREE)


def narrow(rate=0):
    if rate > 1:
        raise RuntimeError(f"rate\n{rate}" + 400 * ".")


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (narrow, {"rata": 1}, "^model.rata: net takes no such key; did you mean 'rate'\\?$"),
        (lambda **o: narrow(1, **o), {"rate": 1}, "^model.rate: the library settles that for net; allowed: wide$"),
        (narrow, {"rate": 2}, "^model.rate=2: net can't be made with that: RuntimeError: rate 2\\.+$"),
    ],
)
def test_what_a_library_raises_is_one_line_that_names_the_option(call, options, message):
    with pytest.raises(ValueError, match=message) as told, telling_options("net", options, FREE):
        call(**options)
    assert len(str(told.value)) < 400


def test_without_options_an_error_is_the_library_s_own():
    with pytest.raises(ZeroDivisionError), telling_options("net", {}, FREE):
        _ = 1 / 0

"""Laws of the solution: exact fractions that bring the new factors into the weights, or a refusal."""

import pytest
import torch
from foldable import Classic, linear
from torch import nn

from dropout_lab.dropout.folding.fold import fold


def test_dropout_inside_an_opaque_module_is_refused() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 8))
    model[0].dropout1 = Classic(0.5)
    with pytest.raises(ValueError, match=r"'0.dropout1' \(p=0.5\) is inside TransformerEncoderLayer 0"):
        fold(model, torch.randn(3, 2, 8))


def test_what_the_graph_does_not_show_is_noticed_on_the_example() -> None:
    model = nn.Sequential(linear(), Classic(0.5), nn.ReLU(), linear())
    model[2].register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(RuntimeError, match="changed the output on example_input"):
        fold(model, torch.randn(3, 8))

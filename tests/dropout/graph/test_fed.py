"""Which affine layers a dropout layer feeds."""

import pytest
import torchvision
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.dropout.graph.fed import fed_layers
from dropout_lab.models import Transformer


def fed(net: nn.Module) -> dict[str | None, list[str]]:
    paths = {module: path for path, module in net.named_modules()}
    return {layer.name or paths[layer]: [paths[each] for each in layers] for layer, layers in fed_layers(net).items()}


class Branched(nn.Module):
    """Two heads that read one layer, a branch that is added, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.drop = nn.Conv2d(1, 2, 3), Dropout(0.1)
        self.left, self.right = nn.Linear(2, 4), nn.Linear(2, 4)
        self.on_weights, self.out = Dropout(0.2), nn.Linear(4, 4)
        self.branch, self.end, self.head = nn.Linear(4, 4), Dropout(0.3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.trunk(x)).relu().mean((2, 3))
        weights = self.on_weights((self.left(x) @ self.right(x).T).softmax(1))
        x = self.out(weights @ self.right(x))
        return self.head((x + self.end(self.branch(x))) * 2)


def test_the_nearest_affine_layers_are_fed_through_what_lies_between() -> None:
    assert fed(Branched()) == {"drop": ["left", "right"], "on_weights": ["out"], "end": []}


def test_another_dropout_layer_ends_the_search_and_a_layer_that_is_called_twice_is_named_once() -> None:
    shared = nn.Linear(3, 3)
    net = nn.Sequential(Dropout(0.1), nn.LayerNorm(3), Dropout(0.2), nn.Flatten(), shared, Dropout(0.3), shared)
    assert fed(net) == {"0": [], "2": ["4"], "5": ["4"]}


def test_what_install_has_hung_on_modules_is_found() -> None:
    net = torchvision.models.resnet18(num_classes=3)
    install(net, Dropout, Placement(["input", "pattern", "classifier"], pattern="layer1.0.relu"))
    places = {"00_input": ["conv1"], "06_layer1_0_relu": ["layer1.0.conv2", "layer1.1.conv1"], "59_fc": ["fc"]}
    assert fed(net) == places


def test_each_place_of_a_transformer_feeds_what_reads_it() -> None:
    net = Transformer((6,), 11, width=8, depth=1, heads=2)
    install(net, Dropout, Placement("existing"))
    assert [*fed(net).values()] == [
        ["blocks.0.attention.qkv"],  # the embedding
        ["blocks.0.attention.out"],
        ["blocks.0.mlp.down"],
        [],  # the ends of both branches
        [],
    ]


def test_a_network_that_can_not_be_followed_is_refused() -> None:
    class Changing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"^Changing can't be traced by torch.fx"):
        fed_layers(Changing())

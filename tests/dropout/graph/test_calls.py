"""Laws of the trace: order and names of leaf calls are those of the bare model, and the graph computes the same."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision import models

from dropout_lab.dropout import Placement, install
from dropout_lab.dropout.graph.calls import calls, depends_on_input, trace
from dropout_lab.dropout.layer import Dropout


class Net(nn.Module):
    """Two calls of one ReLU, an auxiliary head in train mode only, an optional argument, a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 5)
        self.aux = nn.Linear(4, 5)

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        x = self.relu(self.features(x))
        x = self.relu(x - 0.1).mean((2, 3))
        if scale is not None:
            x = x * scale
        if self.training:
            x = x + self.aux(x).sum()
        return self.fc(self.dropout(x))


class ByValue(nn.Module):
    """A forward pass that looks at values, which no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(4, 4)
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if x.sum() > 0 else self.first(x)


NAMES = ["00_features_0", "01_features_1", "02_relu", "03_relu_call2", "04_aux", "05_dropout", "06_fc"]


def names(model: nn.Module) -> list[str]:
    return [call.name for call in calls(model)]


def test_calls_come_in_call_order_and_a_second_call_has_an_index_of_its_own() -> None:
    found = calls(Net())
    assert [call.name for call in found] == NAMES
    assert [call.index for call in found] == list(range(7))
    assert [(call.path, call.number) for call in found if call.path == "relu"] == [("relu", 1), ("relu", 2)]


def test_the_second_relu_of_vgg16_is_03_features_3() -> None:
    with torch.device("meta"):
        model = models.vgg16()
    assert names(model)[3] == "03_features_3"


@pytest.mark.parametrize("where", ["existing", "activations", "convolutions", "classifier", "input", "default"])
def test_names_are_those_of_the_bare_model_after_install(where: str) -> None:
    model = Net()
    install(model, Dropout, Placement(where))
    install(model, Dropout, Placement([where, "activations", "input"]))
    assert names(model) == NAMES


def test_names_do_not_depend_on_the_mode_and_the_mode_is_kept() -> None:
    model = Net().eval()
    model.features.train()
    before = [module.training for module in model.modules()]
    assert names(model) == NAMES
    assert [module.training for module in model.modules()] == before


def test_from_a_hundred_calls_on_an_index_has_three_digits() -> None:
    assert names(nn.Sequential(*[nn.ReLU() for _ in range(99)]))[98] == "98_98"
    assert names(nn.Sequential(*[nn.ReLU() for _ in range(100)]))[98] == "098_98"


@pytest.mark.parametrize("where", [None, "existing", ["activations", "input", "classifier"]])
@pytest.mark.parametrize("training", [True, False])
def test_the_graph_computes_what_the_model_computes(where: str | list[str] | None, training: bool) -> None:
    model = Net().train(training)
    if where:
        install(model, Dropout, Placement(where))
    x = torch.randn(4, 3, 6, 6)
    graph = trace(model)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    assert torch.equal(graph(x), expected)


def test_the_graph_shares_the_parameters_of_the_model() -> None:
    model = Net()
    install(model, Dropout, Placement("activations"))
    ours = dict(model.named_parameters())
    assert all(parameter is ours[name] for name, parameter in trace(model).named_parameters())


def test_attached_layers_are_nodes_where_they_act() -> None:
    model = Net().eval()
    install(model, Dropout, Placement(["activations", "classifier", "input", "pattern"], pattern="aux"))
    targets = [node.target for node in trace(model).graph.nodes if node.op == "call_module"]
    assert targets[:4] == ["dropout_before", "features.0", "features.1", "relu"]
    assert targets.count("relu.dropout") == 2
    assert targets[targets.index("relu") + 1] == "relu.dropout"
    assert targets[-2:] == ["dropout", "fc"]  # the model's own, replaced in its place


def test_a_model_that_can_not_be_traced_is_listed_in_the_order_of_its_definition() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(ByValue()) == ["00_second", "01_first"]
    with pytest.raises(ValueError, match="ByValue can't be traced"):
        trace(ByValue())


def test_an_installed_model_that_can_not_be_traced_keeps_its_names() -> None:
    model = ByValue()
    install(model, Dropout, Placement("pattern", pattern="first"))
    assert names(model) == ["00_second", "01_first"]


def test_layers_inside_an_opaque_torch_layer_are_found() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8, 2))
    paths = [call.path for call in calls(model)]
    assert paths[0] == "0.self_attn"
    assert {"0.dropout", "0.dropout1", "0.dropout2", "0.linear1"} < set(paths)
    assert "0.self_attn.out_proj" not in paths  # never called as a module
    assert paths[-1] == "1"


def test_a_parametrized_layer_is_one_leaf() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(3, 3)), nn.ReLU())
    assert names(model) == ["00_0", "01_1"]


def test_hooks_of_containers_are_part_of_the_graph() -> None:
    model = Net().eval()
    model.features.register_forward_hook(lambda module, args, output: output * 2)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(trace(model)(x), model(x))
    assert "mul" in [node.name for node in trace(model).graph.nodes]


def test_what_is_made_of_parameters_alone_does_not_depend_on_the_input() -> None:
    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(2, 3))
            self.mlp, self.fc = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + self.mlp(self.table).sum(0)

    by_path = {call.path: call.node for call in calls(Bias())}
    assert by_path["fc"] is not None
    assert by_path["mlp"] is not None
    assert depends_on_input(by_path["fc"])
    assert not depends_on_input(by_path["mlp"])

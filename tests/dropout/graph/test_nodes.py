"""Laws of nodes: an operation has one name however it is called, and a message says which node it is."""

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace

from dropout_lab.dropout.graph.nodes import ACTIVATIONS, describe, module_of, op_name


class Calls(nn.Module):
    """A module, a parameter, a method, and functions, one of them in place."""

    def __init__(self):
        super().__init__()
        self.head, self.shift = nn.Sequential(nn.Linear(3, 3)), nn.Parameter(torch.ones(3))

    def forward(self, x):
        x = self.head(x) + self.shift
        return torch.relu_(x).flatten(1)


class Block(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def test_an_operation_is_named_with_the_part_of_the_model_that_it_lies_in():
    graph = symbolic_trace(nn.Sequential(nn.Sequential(Block(nn.ReLU())))).graph
    assert "add() in 0.0" in {describe(node) for node in graph.nodes}


@pytest.fixture(scope="module")
def nodes():
    return {describe(node): node for node in symbolic_trace(Calls()).graph.nodes}


def test_a_message_calls_a_node_by_what_it_is(nodes):
    assert {"Linear head.0", "the parameter shift", "add()", "relu()", "flatten()"} <= set(nodes)


def test_a_node_has_the_module_that_it_calls(nodes):
    assert type(module_of(nodes["Linear head.0"])) is nn.Linear


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "relu"),
        (torch.relu_, "relu"),
        (lambda x: x.relu_(), "relu"),
        (lambda x: x + 1, "add"),
        (torch.nn.functional.relu, "relu"),
        (lambda x: x.view(-1), "view"),
    ],
)
def test_functions_methods_and_their_in_place_forms_have_one_name(function, name):
    class Applies(nn.Module):
        def forward(self, x):
            return function(x)

    (node,) = (node for node in symbolic_trace(Applies()).graph.nodes if node.op.startswith("call_"))
    assert op_name(node) == name


def test_every_activation_of_torch_that_acts_on_each_unit_by_itself_is_one():
    not_by_unit = {"GLU", "MultiheadAttention", "Softmax", "Softmin", "LogSoftmax", "Softmax2d"}
    of_torch = {name for name in nn.modules.activation.__all__ if name not in not_by_unit}
    assert {kind.__name__ for kind in ACTIVATIONS} == of_torch

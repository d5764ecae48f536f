"""Copies of models: tied as the models are, and refused in one line by the module and the attribute in their way."""

import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from foldable import Classic, linear
from torch import nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

from dropout_lab.dropout.folding.copies import copied
from dropout_lab.dropout.folding.fold import convert, fold
from dropout_lab.dropout.folding.match import factors_of_matching

CHANGES: list[Callable[[nn.Module, torch.Tensor], object]] = [
    fold,
    lambda model, x: convert(model, "inverted", x),
    factors_of_matching,
]


def model_with(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(linear(), nn.ReLU(), Classic(0.5), layer)


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return norm(linear())


COMPUTED: dict[str, tuple[Callable[[], nn.Module], str, Callable[[nn.Module], object]]] = {
    "weight norm": (lambda: normed(weight_norm), r"remove_weight_norm\(.*'3'\), 'weight'\)", remove_weight_norm),
    "spectral norm": (
        lambda: normed(spectral_norm),
        r"remove_spectral_norm\(.*'3'\), 'weight'\)",
        remove_spectral_norm,
    ),
    "pruned": (
        lambda: prune.l1_unstructured(linear(), "weight", 0.5),
        r"prune\.remove\(.*'3'\), 'weight'\)",
        lambda layer: prune.remove(layer, "weight"),
    ),
    "pruned bias": (
        lambda: prune.l1_unstructured(linear(), "bias", 0.5),
        r"prune\.remove\(.*'3'\), 'bias'\)",
        lambda layer: prune.remove(layer, "bias"),
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("change", CHANGES)
def test_a_weight_that_a_hook_computes_is_refused_with_the_remedy_that_helps(
    name: str, change: Callable[[nn.Module, torch.Tensor], object]
) -> None:
    made, message, remedy = COMPUTED[name]
    model, x = model_with(made()), torch.randn(3, 8)
    model(x)  # a spectral norm computes its weight from then on
    with pytest.raises(ValueError, match=rf"attribute '\w+' of Linear '3' can't be copied, .*; torch\..*{message}"):
        change(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        remedy(model[3])
    change(model, x)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (threading.Lock(), r"\(cannot pickle '_thread\.lock' object\); keep it outside of the model"),
        ((number for number in ()), r"\(cannot pickle 'generator' object\)"),
        (torch.ones(2, requires_grad=True) * 2, "it is computed from other tensors; detach it$"),
    ],
    ids=["lock", "generator", "tensor"],
)
def test_an_attribute_that_can_not_be_copied_is_named(
    value: object, message: str, change: Callable[[nn.Module, torch.Tensor], object]
) -> None:
    model = nn.Sequential(model_with(linear()))
    model[0][1].extra = value
    with pytest.raises(ValueError, match=rf"attribute 'extra' of ReLU '0\.1' can't be copied.*{message}") as refused:
        change(model, torch.randn(3, 8))
    assert "\n" not in str(refused.value)


def test_a_model_that_refuses_copies_of_itself_says_why() -> None:
    class Refusing(nn.Linear):
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("one of\na kind")

    with pytest.raises(ValueError, match="Refusing can't be copied, which is done first: one of a kind"):
        copied(Refusing(2, 2))


def test_layers_without_weights_yet_are_refused() -> None:
    model = model_with(nn.LazyLinear(8))
    with pytest.raises(ValueError, match=r"3\.weight has no values before .*; call the model once first"):
        fold(model, torch.randn(3, 8))
    model(torch.randn(3, 8))
    fold(model, torch.randn(3, 8))


def test_a_copy_is_tied_as_the_model_is() -> None:
    model = nn.Sequential(linear(), linear(), linear())
    model[1].weight.data = model[0].weight.data.t()
    copy = copied(model)
    assert torch.equal(copy[1].weight, model[1].weight)
    with torch.no_grad():
        copy[0].weight.zero_()
    assert not copy[1].weight.any()
    assert copy[2].weight.any()
    assert model[0].weight.any()

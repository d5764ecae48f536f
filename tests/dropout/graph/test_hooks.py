"""An attached layer is a child of its host that runs from a hook; the host's code and tensors stay its own."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.dropout.graph.hooks import (
    AFTER,
    BEFORE,
    INSIDE,
    as_before,
    attach,
    attached,
    before,
    detach,
    is_ours,
    override,
    require_free,
    restore,
    unhooked,
)


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).relu()


def layer(name: str, p: float = 0.5) -> Dropout:
    made = Dropout(p)
    made.name = name
    return made


def host(*children: str) -> Host:
    torch.manual_seed(0)
    made = Host()
    for child in children:
        attach(made, layer(child), child)
    return made


def keyed(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with mask_keys(seed=1, step=0, rows=range(len(x))):
        return call(x)


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def expected(children: tuple[str, ...], x: Tensor) -> Tensor:
    bare = host()
    with mask_keys(seed=1, step=0, rows=range(len(x))):
        y = bare(layer(BEFORE)(x) if BEFORE in children else x)
        return layer(AFTER)(y) if AFTER in children else y


CHILDREN = [(), (AFTER,), (BEFORE,), (BEFORE, AFTER), (AFTER, BEFORE)]
every_way = pytest.mark.parametrize("children", CHILDREN, ids="-".join)


@every_way
def test_the_layer_is_applied_where_it_hangs(children: tuple[str, ...]) -> None:
    assert torch.equal(keyed(host(*children), X), expected(children, X))


@every_way
def test_attached_lists_what_hangs_there(children: tuple[str, ...]) -> None:
    model = host(*children)
    assert list(attached(model)) == sorted(children, reverse=True)
    assert all(attached(model)[child] is model.get_submodule(child) for child in children)


@every_way
def test_detached_is_bare(children: tuple[str, ...]) -> None:
    model, bare = host(*children), host()
    detach(model)
    assert list(dict(model.named_modules())) == list(dict(bare.named_modules()))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert torch.equal(keyed(model, X), bare(X))


@every_way
def test_state_dict_keys_stay(children: tuple[str, ...]) -> None:
    assert list(host(*children).state_dict()) == list(host().state_dict())


def test_unhooked_shares_tensors_and_leaves_the_host_as_it_was() -> None:
    model = host(AFTER, BEFORE)
    bare = unhooked(model)
    assert bare.linear is model.linear
    assert torch.equal(keyed(bare, X), host()(X))
    assert torch.equal(keyed(model, X), expected((BEFORE, AFTER), X))


def test_other_hooks_survive_detaching_and_see_dropout_as_part_of_the_host() -> None:
    seen: list[Tensor] = []
    model = host()
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    attach(model, layer(AFTER), AFTER)
    out = keyed(model, X)
    assert torch.equal(seen[-1], out)
    detach(model)
    model(X)
    assert len(seen) == 2


def through_torch_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copy.deepcopy, through_torch_save])
def test_a_copy_has_layers_of_its_own(way: Callable[[nn.Module], nn.Module]) -> None:
    model = host(AFTER, BEFORE)
    twin = way(model)
    assert torch.equal(keyed(twin, X), keyed(model, X))
    twin.get_submodule(AFTER).p = twin.get_submodule(BEFORE).p = 0.0  # type: ignore[assignment]
    assert torch.equal(keyed(twin, X), host()(X))
    assert torch.equal(keyed(model, X), expected((BEFORE, AFTER), X))


def test_train_and_eval_reach_the_layer() -> None:
    model = host(AFTER)
    assert torch.equal(model.eval()(X), host()(X))
    assert torch.equal(keyed(model.train(), X), expected((AFTER,), X))


@pytest.mark.slow
def test_hooks_compile_into_the_graph() -> None:
    torch._dynamo.reset()
    model = host(AFTER, BEFORE)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.equal(keyed(compiled, X), keyed(model, X))


def test_a_module_without_one_tensor_as_output_is_refused() -> None:
    model = nn.Identity()
    attach(model, layer(AFTER), AFTER)
    with pytest.raises(TypeError, match="dropout after Identity needs one tensor, and the module returned tuple"):
        model((X, X))


def test_a_module_called_by_keyword_is_refused() -> None:
    model = nn.Linear(6, 8)
    attach(model, layer(BEFORE), BEFORE)
    with pytest.raises(TypeError, match=r"needs its input as a positional argument: call module\(x\), not module\(inp"):
        model(input=X)


def test_further_arguments_are_passed_on() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor, gate: Tensor) -> Tensor:
            return x * gate

    model = Gate()
    attach(model, layer(BEFORE), BEFORE)
    assert torch.equal(keyed(lambda x: model(x, 2 * torch.ones(6)), X), 2 * keyed(layer(BEFORE), X))


def test_a_name_of_the_hosts_own_is_not_free() -> None:
    attention = nn.MultiheadAttention(4, 2)
    with pytest.raises(ValueError, match="MultiheadAttention has an attribute 'dropout' of its own"):
        require_free(attention, AFTER)
    require_free(attention, BEFORE)
    require_free(host(AFTER), AFTER)  # in place of the layer attached before


def test_an_overridden_attribute_is_its_own_again_when_it_is_restored() -> None:
    model = nn.Sequential(host())
    model[0].rate = 0.3
    for value in (0.0, 0.1):
        override(model[0], "rate", value)
    override(model[0], "absent", True)
    for each in (model[0], copy.deepcopy(model)[0]):
        assert (each.rate, before(each, "rate"), before(each, "absent")) == (0.1, 0.3, None)
        assert before(each, "linear") is each.linear
    with as_before(model):
        assert (model[0].rate, model[0].absent) == (0.3, None)
    assert (model[0].rate, model[0].absent) == (0.1, True)
    for _ in range(2):
        restore(model[0])
        assert model[0].rate == 0.3
        assert not hasattr(model[0], "absent")


def test_layers_of_the_lab_are_told_from_children_of_the_host() -> None:
    made = host(AFTER)
    made.add_module(INSIDE, layer("inside"))
    assert [name for name, _ in made.named_children() if is_ours(made, name)] == [AFTER, INSIDE]

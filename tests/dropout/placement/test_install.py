"""Laws of placement: the right sites, the right rates, nothing else of the model changed, and it can be taken back."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from placed import EVERYWHERE, IMAGE, SITES, Cnn, Residual, layers
from torch import Tensor, nn

from dropout_lab.dropout import Part, Placement, ScheduledRates, install_all
from dropout_lab.dropout.layer import Dropout, none
from dropout_lab.dropout.placement.install import install, site_table, uninstall
from dropout_lab.dropout.schedules import constant, early
from dropout_lab.models.wide_resnet import WideResNet


class Remembering(Dropout):
    """A strategy with a buffer, which would change the keys of every checkpoint."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.register_buffer("steps", torch.zeros(()))


def test_none_leaves_the_model_and_its_own_dropout_as_they_are() -> None:
    model, bare = Cnn(), Cnn()
    assert install(model, Dropout, Placement("none")) == []
    assert repr(model) == repr(bare)
    assert any(isinstance(layer, nn.Dropout) for layer in model.modules())


@pytest.mark.parametrize("where", [*SITES, EVERYWHERE])
def test_layers_act_where_the_table_says(where: Any) -> None:
    class Zero(Dropout):
        def draw(self, x: Tensor) -> Tensor:
            called.append(self.name)
            return torch.zeros_like(x)

    called: list[str | None] = []
    model = Cnn()
    model.drop.p = model.head[3].p = 0.0  # where they stay
    found = install(model, Zero, Placement(where))
    torch.testing.assert_close(model(IMAGE), model(torch.zeros_like(IMAGE)))  # nothing of the image comes through
    assert called == [name for name, _, _ in found] * 2


@pytest.mark.parametrize("where", [*SITES, EVERYWHERE])
def test_state_dict_keys_stay(where: Any) -> None:
    bare, model = Cnn(), Cnn()
    install(model, Dropout, Placement(where))
    assert list(model.state_dict()) == list(bare.state_dict())
    bare.load_state_dict(model.state_dict(), strict=True)


def test_new_layers_are_in_the_mode_of_their_site() -> None:
    model = Cnn().eval()
    model.features.train()
    install(model, Dropout, Placement(["activations", "existing"]))
    assert [layer.training for layer in layers(model).values()] == [True, False, False, False]


@pytest.mark.parametrize(
    "make", [Dropout, partial(Dropout, scaling="classic"), none, partial(Dropout, p=0.9), nn.Dropout]
)
def test_make_gets_the_rate_of_each_site(make: Callable[[float], nn.Module]) -> None:
    found = install(Cnn(), make, Placement("existing", p=0.4, rate="linear"))
    assert [p for _, _, p in found] == ([0, 0] if make is none else [0.2, 0.4])


@pytest.mark.parametrize("where", [*SITES, EVERYWHERE])
def test_uninstall_gives_the_bare_model_back(where: Any) -> None:
    model = Cnn()
    before = repr(model)
    install(model, Dropout, Placement(where))
    assert repr(model) != before
    uninstall(model)
    assert repr(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_second_install_takes_the_place_of_the_first() -> None:
    once, twice = Cnn(), Cnn()
    install(twice, partial(Dropout, mask="sample"), Placement(EVERYWHERE, p=0.1))
    expected = install(once, Dropout, Placement(["activations", "classifier"]))
    assert install(twice, Dropout, Placement(["activations", "classifier"])) == expected
    assert repr(twice) == repr(once)


def test_dropout_on_the_input_of_a_sequential_is_no_step_of_it() -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout(), nn.Linear(4, 4)), nn.Linear(4, 2))
    install(model, Dropout, Placement(["existing", "input"]))
    assert len(model) == 2
    assert len(layers(model)) == 2
    assert model(torch.ones(2, 4)).shape == (2, 2)
    count = []
    layers(model)["00_input"].register_forward_hook(lambda *_: count.append(1))
    model(torch.ones(2, 4))
    assert count == [1]


def test_a_shared_dropout_layer_is_replaced_wherever_it_hangs() -> None:
    shared = nn.Dropout()
    model = nn.Sequential(nn.Linear(2, 2), shared, nn.Linear(2, 2), shared)
    assert install(model, Dropout, Placement("existing")) == [("01_1", "1", 0.5)]
    assert model[1] is model[3]
    assert isinstance(model[3], Dropout)


@pytest.mark.parametrize("where", [*SITES, EVERYWHERE])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_layers_of_its_own(where: Any, clone: Callable[[nn.Module], nn.Module]) -> None:
    model = Cnn()
    install(model, Dropout, Placement(where))
    copied = clone(model)
    torch.manual_seed(0)
    expected = model(IMAGE)
    for layer in layers(model).values():
        layer.p = 0.0
    torch.manual_seed(0)
    assert torch.equal(copied(IMAGE), expected)
    uninstall(copied)
    assert repr(copied) == repr(Cnn())


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_an_installed_model_compiles_to_one_graph(training: bool) -> None:
    torch.compiler.reset()
    model = Cnn().train(training)
    install(model, partial(Dropout, scaling="classic"), Placement(EVERYWHERE, p=0.3))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    compiled(IMAGE).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    if not training:
        torch.testing.assert_close(compiled(IMAGE), model(IMAGE))
    else:
        assert not torch.equal(compiled(IMAGE), compiled(IMAGE))


def test_the_eval_kernel_of_the_transformer_layer_does_not_skip_the_lab() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2)).eval()
    install(model, partial(Dropout, scaling="classic"), Placement("existing"))
    x = torch.randn(2, 3, 8)
    expected = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


def test_a_list_of_another_length_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="lists 3 rates, and the placement has 2 sites"):
        install(Cnn(), Dropout, Placement("existing", rate=[0.1, 0.2, 0.3]))


@pytest.mark.parametrize(
    ("bad", "error"), [(1.0, ValueError), (-0.1, ValueError), (True, TypeError), ("0.5", TypeError)]
)
def test_each_rate_of_a_list_is_checked_and_nothing_is_installed(bad: Any, error: type[Exception]) -> None:
    model = Cnn()
    with pytest.raises(error, match="0 <= p < 1"):
        install(model, Dropout, Placement("existing", rate=[0.1, bad]))
    assert repr(model) == repr(Cnn())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: None, TypeError, "must return a dropout layer"),
        (lambda p: nn.ReLU(), TypeError, "no drop probability p"),
        (Remembering, ValueError, "keeps 'steps' in state_dict"),
    ],
)
def test_what_is_no_dropout_layer_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        install(Cnn(), make, Placement("existing"))


def test_a_refused_second_install_leaves_the_first() -> None:
    model = Cnn()
    install(model, Dropout, Placement(EVERYWHERE))
    before = repr(model)
    for make, placement in [
        (partial(Dropout, mask="channel"), Placement("activations")),
        (Dropout, Placement("pattern", pattern="nothing")),
    ]:
        with pytest.raises(ValueError, match=r"head|nothing"):
            install(model, make, placement)
        assert repr(model) == before


def test_a_module_with_a_dropout_attribute_of_its_own_is_no_host() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.fc = nn.MultiheadAttention(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.attention(x, x, x)[0])

    model = Attention()
    with pytest.raises(ValueError, match="MultiheadAttention has an attribute 'dropout' of its own"):
        install(model, Dropout, Placement(["classifier", "pattern"], pattern="attention"))
    assert not layers(model)


def test_a_site_without_a_tensor_says_so_when_it_is_run() -> None:
    model = nn.Sequential(nn.AdaptiveMaxPool1d(1, return_indices=True))
    install(model, Dropout, Placement("pattern", pattern="0"))
    with pytest.raises(TypeError, match="after AdaptiveMaxPool1d needs one tensor, and the module returned tuple"):
        model(torch.ones(1, 1, 4))
    model = Residual()
    install(model, Dropout, Placement("input"))
    with pytest.raises(TypeError, match="positional argument"):
        model(x=IMAGE)


def test_the_table_has_a_row_for_each_layer() -> None:
    model = Cnn()
    placement = Placement(["input", "activations", "existing"], p=0.5, rate="linear")
    install(model, partial(Dropout, mask="channel", elsewhere="element"), placement)
    assert site_table(model).splitlines() == [
        "name           module             dropout   mask     p",
        "00_input       Cnn                before    channel  0.1",
        "02_features_2  features.2 (ReLU)  after     channel  0.2",
        "04_drop        drop (Dropout)     replaced  channel  0.3",
        "07_head_2      head.2 (ReLU)      after     element  0.4",
        "08_head_3      head.3 (Dropout)   replaced  element  0.5",
    ]


def test_several_strategies_have_sites_rates_and_schedules_of_their_own() -> None:
    model = WideResNet((3, 8, 8), 3, depth=10, width=1)
    parts = [
        Part(partial(Dropout, mask="sample"), Placement("branches", p=0.2, rate="linear"), early),
        Part(Dropout, Placement("classifier", p=0.5)),
    ]
    found = install_all(model, parts)
    assert found == sorted(found)
    alone = [install(WideResNet((3, 8, 8), 3, depth=10, width=1), make, placement) for make, placement, _ in parts]
    assert found == sorted([*alone[0], *alone[1]])
    masks = {layer.mask: layer.p for layer in layers(model).values()}
    assert masks == {"sample": 0.2, "element": 0.5}
    ScheduledRates(model, constant).set(1, 2)
    assert {layer.mask: layer.p for layer in layers(model).values()} == {"sample": 0.0, "element": 0.5}


def test_two_strategies_do_not_meet_at_a_site_and_then_none_is_installed() -> None:
    model = Cnn()
    with pytest.raises(ValueError, match=r"^placement.where=existing and existing puts two dropout layers at "):
        install_all(model, [Part(Dropout, Placement("existing"))] * 2)
    assert layers(model) == {}

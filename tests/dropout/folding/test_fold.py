"""Folded and converted models compute in eval what they computed before; else layer and op in the way are named."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from foldable import Classic, Residual, distance, eval_output, linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import SGD, Adam, AdamW
from torchvision import models

from dropout_lab.dropout import Dropout, Placement, install, mask_keys
from dropout_lab.dropout.folding.fold import convert, fold, transfer


def beside(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat((x, y), dim=1)


def beside_by_position(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], 1)


class Gate(nn.Module):
    """Squeeze and excitation: x times an attention map of its own."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.sigmoid(self.body(x)) * x


class LayerScale(nn.Module):
    """A residual branch times a parameter, as in ConvNeXt."""

    def __init__(self, *body: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.gamma = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.body(x) / 2


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(8, 8)
        self.drop = Classic(0.3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.dropout = Classic(0.6)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.before(x)).unsqueeze(1).expand(-1, 3, -1) * torch.arange(1.0, 4.0)[:, None])
        y, weights = self.attention(x, x, x)
        return self.norm(self.dropout(y)).mean(1) + weights.mean()


class Functions(nn.Module):
    """Everything as functions and methods, with sizes computed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 3, 3), nn.Linear(15, 2)
        self.drop = Classic(0.4)

    def forward(self, x: Tensor) -> Tensor:
        n, width = x.shape
        x = self.drop(self.first(x.view(n, 1, width)).relu())
        x = nn.functional.max_pool1d(nn.functional.pad(x, (1, 1)), 2, stride=1)
        x = nn.functional.leaky_relu(torch.flatten(x, 1) * 3 / x.size(0))
        return self.last(x.reshape(x.shape[0], -1)[:, :15] + 0)


LEGAL: dict[str, Callable[[], nn.Module]] = {
    "forward": lambda: nn.Sequential(linear(), nn.ReLU(), Classic(0.3), linear()),
    "input": lambda: nn.Sequential(Classic(0.3), linear()),
    "output": lambda: nn.Sequential(linear(), Classic(0.3)),
    "stacked": lambda: nn.Sequential(linear(), Classic(0.3), nn.LeakyReLU(), nn.Dropout(0.5), Classic(0.4), linear()),
    "backward": lambda: nn.Sequential(linear(), Classic(0.3), nn.GELU(), Classic(0.2), linear()),
    "residual": lambda: nn.Sequential(linear(), Residual(linear(), nn.PReLU(), linear(), Classic(0.3)), nn.Tanh()),
    "cat": lambda: nn.Sequential(
        *(linear(), Residual(linear(), Classic(0.3), join=beside), nn.ReLU()),
        *(Residual(nn.Linear(16, 8), Classic(0.3), join=beside_by_position), nn.Linear(24, 4)),
    ),
    "norm before": lambda: nn.Sequential(linear(), nn.LayerNorm(8), nn.ReLU(), Classic(0.3), Residual(linear())),
    "norm after": lambda: nn.Sequential(linear(), Classic(0.3), nn.LayerNorm(8), linear()),
    "batch norm": lambda: nn.Sequential(Classic(0.3), nn.BatchNorm1d(8), nn.ReLU6(), linear()),
    "bare batch norm": lambda: nn.Sequential(Classic(0.3), nn.BatchNorm1d(8, affine=False), nn.Tanh()),
    "gate": lambda: nn.Sequential(
        linear(), Classic(0.4), Gate(linear(), Classic(0.2), linear()), Classic(0.5), linear()
    ),
    "layer scale": lambda: nn.Sequential(nn.Sigmoid(), LayerScale(nn.SiLU(), Classic(0.5)), nn.SiLU()),
    "gaussian": lambda: nn.Sequential(linear(), Classic(0.3, noise="gaussian"), linear()),
    "attention": Attention,
    "functions": Functions,
    "inverted": lambda: nn.Sequential(linear(), nn.Sigmoid(), Dropout(0.5), nn.Tanh(), nn.Dropout(0.1), linear()),
    "unscaled": lambda: nn.Sequential(nn.Sigmoid(), Dropout(0.5, scaling="unscaled"), nn.Tanh(), nn.AlphaDropout(0.1)),
}


def warm_up(model: nn.Module) -> nn.Module:
    """Give norms statistics and weights of their own: those of a new model are 0 and 1."""
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)) and tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", LEGAL)
def test_folding_keeps_the_eval_output(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model, x = warm_up(LEGAL[name]()).to(dtype), torch.randn(5, 8, dtype=dtype)
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, torch.randn(3, 8, dtype=dtype))
    assert not any(isinstance(module, _DropoutNd) for module in folded.modules())
    assert not any(module.training for module in folded.modules())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert folded.state_dict().keys() == before.keys()
    assert distance(eval_output(model, x), eval_output(folded, x)) < tolerance


@pytest.mark.parametrize("scaling", ["inverted", "unscaled"])
def test_inverted_and_unscaled_layers_are_just_removed(scaling: str) -> None:
    model = nn.Sequential(nn.Softmax(1), Dropout(0.5, scaling=scaling), nn.GELU(), linear(), Dropout(0.3))
    folded = fold(model, torch.randn(3, 8))
    assert [type(layer) for layer in folded] == [nn.Softmax, nn.Identity, nn.GELU, nn.Linear, nn.Identity]
    assert all(torch.equal(folded.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("where", ["existing", "activations", "convolutions", "classifier", ["input", "activations"]])
def test_installed_dropout_folds_into_the_plain_architecture(where: str | list[str]) -> None:
    def plain() -> nn.Sequential:
        head = [nn.Flatten(), nn.Dropout(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), *head).double()

    model, x = plain(), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    install(model, Classic, Placement(where, p=0.4))
    folded, bare = fold(model, x), plain()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in folded.modules())
    assert [path for path, _ in folded.named_modules()] == [path for path, _ in bare.named_modules()]
    bare.load_state_dict(folded.state_dict(), strict=True)
    for layer in bare.modules():
        assert not isinstance(layer, Dropout)
    assert distance(eval_output(model, x), eval_output(bare, x)) < 1e-12


class Strategy(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return super().draw(x[..., :1])


class Renamed(nn.Dropout):
    pass


@pytest.mark.parametrize("layer", [Strategy(0.5), Strategy(0.5, scaling="classic"), Renamed(0.5)])
def test_strategies_that_inherit_their_eval_output_fold_and_convert(layer: nn.Module) -> None:
    model, x = nn.Sequential(linear(), layer, linear()).double(), torch.randn(3, 8, dtype=torch.float64)
    before = eval_output(model, x)
    assert distance(before, eval_output(fold(model, x), x)) < 1e-12
    assert distance(before, eval_output(convert(model, "inverted", x), x)) < 1e-12


class Own(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0


class Foreign(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0


def patched() -> Dropout:
    layer = Classic(0.5)
    layer.forward = torch.tanh  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize("layer", [Own(0.5), Own(0.5, scaling="classic"), Foreign(0.5), patched()])
def test_unknown_strategies_are_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(linear(), layer, linear())
    for change in (fold, partial(convert, scaling="inverted")):
        with pytest.raises(ValueError, match=f"dropout layer '1' is a {type(layer).__name__}"):
            change(model, example_input=torch.randn(3, 8))


def test_random_eval_outputs_can_not_be_folded() -> None:
    model = nn.Sequential(linear(), Dropout(0.5), linear())
    model[1].monte_carlo = True
    with pytest.raises(ValueError, match="'1' is in Monte Carlo mode"):
        fold(model, torch.randn(3, 8))


WIDTH = 6
RATES = st.sampled_from([0.1, 0.3, 0.5, 0.8])
PASSES = st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, partial(nn.Dropout, 0.2)])
BLOCKS = st.sampled_from([nn.Sigmoid, nn.Tanh, nn.GELU, nn.ReLU6, partial(nn.LayerNorm, WIDTH), nn.SiLU])
AFFINES = st.sampled_from([partial(nn.Linear, WIDTH, WIDTH), partial(nn.Linear, WIDTH, WIDTH, bias=False),
                           partial(nn.BatchNorm1d, WIDTH), partial(nn.BatchNorm1d, WIDTH, affine=False)])  # fmt: skip


def nets(ops: st.SearchStrategy[Callable[[], nn.Module]]) -> st.SearchStrategy[nn.Module]:
    """Random nets that start and end with a Linear, with residual, gated and scaled branches that do the same."""
    layer = st.one_of(ops.map(lambda make: make()), RATES.map(Classic))

    def closed(body: st.SearchStrategy[list[nn.Module]]) -> st.SearchStrategy[list[nn.Module]]:
        return body.map(lambda layers: [nn.Linear(WIDTH, WIDTH), *layers, nn.Linear(WIDTH, WIDTH)])

    def branch(body: st.SearchStrategy[list[nn.Module]]) -> st.SearchStrategy[list[nn.Module]]:
        kinds = st.sampled_from([Residual, Gate, partial(LayerScale, width=WIDTH)])
        return st.lists(st.one_of(layer, st.builds(lambda kind, b: kind(*b), kinds, closed(body))), max_size=4)

    return closed(st.recursive(st.lists(layer, max_size=6), branch, max_leaves=4)).map(lambda b: nn.Sequential(*b))


@settings(deadline=None, max_examples=60)
@given(nets(st.one_of(PASSES, AFFINES)), st.integers(0, 99))
@pytest.mark.slow
def test_nets_of_legal_ops_fold(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = warm_up(model).double(), torch.randn(4, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(eval_output(fold(model, x), x), eval_output(model, x), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(nets(st.one_of(PASSES, AFFINES, BLOCKS)), st.integers(0, 99), st.sampled_from(["inverted", "unscaled"]))
@pytest.mark.slow
def test_any_net_converts_or_is_refused(model: nn.Module, seed: int, scaling: str) -> None:
    torch.manual_seed(seed)
    model, x = warm_up(model).double(), torch.randn(4, WIDTH, dtype=torch.float64)
    before, weights = eval_output(model, x), copy.deepcopy(model.state_dict())
    try:
        convert(model, scaling, x)
    except ValueError:
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    else:
        assert {layer.scaling for layer in model.modules() if isinstance(layer, Dropout)} <= {scaling}
    torch.testing.assert_close(eval_output(model, x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LEGAL if name not in ("stacked", "inverted", "unscaled")])
def test_converting_there_and_back_keeps_the_eval_output(name: str) -> None:
    torch.manual_seed(0)
    model, x = warm_up(LEGAL[name]()).double(), torch.randn(5, 8, dtype=torch.float64)
    before = eval_output(model, x)
    for scaling in ("inverted", "unscaled", "classic"):
        assert convert(model, scaling, x) is model
        assert {layer.scaling for layer in model.modules() if isinstance(layer, Dropout)} == {scaling}
        assert distance(before, eval_output(model, x)) < 1e-12


def net(scaling: str) -> nn.Sequential:
    torch.manual_seed(0)
    make = partial(Dropout, scaling=scaling)
    branch = Residual(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), make(0.3), nn.Linear(8, 8), make(0.4))
    return nn.Sequential(make(0.1), nn.Linear(8, 8), nn.BatchNorm1d(8), branch, nn.ReLU(), make(0.6), linear()).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, half: bool = False) -> None:
    x = torch.randn(16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for step in steps:
        with mask_keys(seed=5, step=step, rows=range(16)):
            nn.functional.cross_entropy(model(x), torch.arange(16) % 8).backward()
        if half and step == steps[-1]:
            return  # in the middle of accumulating gradients
        optimizer.step()
        optimizer.zero_grad()


CARRIED = {
    "sgd": partial(SGD, lr=0.1, weight_decay=0.01),
    "nesterov": partial(SGD, lr=0.03, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, lr=0.01, weight_decay=0.01, amsgrad=True, eps=1e-4),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1, eps=1e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("scalings", [("classic", "inverted"), ("inverted", "classic")], ids="->".join)
def test_training_goes_on_exactly_after_a_conversion(name: str, scalings: tuple[str, str]) -> None:
    kept = net(scalings[0])
    kept.train()
    optimizer = CARRIED[name](kept.parameters())
    train(kept, optimizer, range(10), half=True)
    changed, its_optimizer = copy.deepcopy((kept, optimizer))
    for ours, theirs in zip(changed.parameters(), kept.parameters(), strict=True):
        ours.grad = theirs.grad.clone()  # which deepcopy leaves out
    convert(changed, scalings[1], torch.randn(4, 8, dtype=torch.float64), its_optimizer)
    assert len(its_optimizer.param_groups) > 1
    for model, its in ((kept, optimizer), (changed, its_optimizer)):
        train(model, its, range(10, 35))
    convert(changed, scalings[0], torch.randn(4, 8, dtype=torch.float64), its_optimizer)
    twin = dict(changed.named_parameters())
    assert max((w - twin[key]).abs().max().item() for key, w in kept.named_parameters()) < 1e-12
    for model, its in ((kept, optimizer), (changed, its_optimizer)):
        train(model, its, range(35, 45))
    assert max((w - twin[key]).abs().max().item() for key, w in kept.named_parameters()) < 1e-12


def test_a_scheduler_made_anew_goes_on_from_the_right_rates() -> None:
    model = net("classic")
    optimizer = CARRIED["nesterov"](model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    train(model, optimizer, range(1))
    scheduler.step()
    convert(model, "inverted", torch.randn(4, 8, dtype=torch.float64), optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch, last_epoch=0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)


def test_training_goes_on_differently_without_the_optimizer() -> None:
    kept = net("classic")
    optimizer = CARRIED["nesterov"](kept.parameters())
    train(kept, optimizer, range(10))
    changed, its_optimizer = copy.deepcopy((kept, optimizer))
    convert(changed, "inverted", torch.randn(4, 8, dtype=torch.float64))
    for model, its in ((kept, optimizer), (changed, its_optimizer)):
        train(model, its, range(10, 35))
    x = torch.randn(4, 8, dtype=torch.float64)
    assert distance(eval_output(kept, x), eval_output(changed, x)) > 1e-3


@pytest.mark.parametrize(
    ("layer", "scaling", "optimizer", "message"),
    [
        (Classic(0.5), "twice", None, "scaling=twice: must be inverted, classic or unscaled"),
        (nn.Dropout(0.5), "classic", None, "'1' is torch's Dropout, which is always inverted"),
        (Classic(0.5), "unscaled", SGD, "can't go from classic to unscaled with the optimizer"),
        (Dropout(0.5, scaling="unscaled"), "inverted", SGD, "can't go from unscaled to inverted with the optimizer"),
        (Classic(0.5), "inverted", torch.optim.Adagrad, "for Adagrad; allowed: SGD, Adam, AdamW"),
    ],
)
def test_impossible_conversions_are_refused(layer: nn.Module, scaling: str, optimizer: type, message: str) -> None:
    model = nn.Sequential(linear(), layer, linear())
    with pytest.raises(ValueError, match=message):
        convert(model, scaling, torch.randn(3, 8), optimizer(model.parameters(), lr=0.1) if optimizer else None)


def test_conversion_for_training_does_not_touch_the_statistics_of_batch_norm() -> None:
    model = nn.Sequential(Classic(0.5), nn.BatchNorm1d(8), linear())
    with pytest.raises(ValueError, match="BatchNorm1d 1"):
        convert(model, "inverted", torch.randn(3, 8), SGD(model.parameters(), lr=0.1))
    assert torch.equal(convert(model, "inverted", torch.randn(3, 8))[1].running_mean, torch.zeros(8))


# One of each family (VGG is large, and in test_trained.py); at other sites (activations, ...) they fold just as well.
FAMILIES = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64,
    "googlenet": 64, "inception_v3": 80, "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "regnet_y_400mf": 64, "resnet18": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64, "swin_t": 64, "swin_v2_t": 64, "vit_b_32": 64,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_classic_dropout_folds_into_plain_torchvision(name: str) -> None:
    torch.manual_seed(0)
    more = {"image_size": 64} if name == "vit_b_32" else {}
    model = warm_up(models.get_model(name, num_classes=10, **more)).double().eval()
    plain = copy.deepcopy(model)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)  # heads that start at 0 would show nothing
    x = torch.randn(1 if name == "maxvit_t" else 2, 3, FAMILIES[name], FAMILIES[name], dtype=torch.float64)
    install(model, Classic, Placement("default", p=0.3))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        model, plain, x = model.to(dtype), plain.to(dtype), x.to(dtype)
        plain.load_state_dict(fold(model, x[:1]).state_dict(), strict=True)
        assert distance(eval_output(model, x), eval_output(plain, x)) < tolerance


def small() -> nn.Module:
    """Dropout after convolution, BatchNorm and ReLU, and behind a hidden layer; its statistics are not the first."""
    blocks = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.0)
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
    return warm_up(model).double()


DROPOUT = {
    "inverted": (Dropout, Placement(p=0.3)),
    "classic": (Classic, Placement(p=0.3)),
    "classic, another p": (Classic, Placement(p=0.6, rate="linear")),
    "classic elsewhere": (Classic, Placement(["input", "activations", "classifier"], p=0.4)),
    "spatial": (partial(Dropout, mask="channel", elsewhere="element"), Placement(p=0.2)),
    "none": (partial(Dropout, scaling="classic"), Placement(p=0.0)),
    "unscaled": (partial(Dropout, scaling="unscaled"), Placement(p=0.7)),
}


@pytest.mark.slow
@pytest.mark.parametrize("there", DROPOUT)
@pytest.mark.parametrize("here", DROPOUT)
def test_weights_compute_the_same_behind_whatever_dropout_they_are_given_to(there: str, here: str) -> None:
    source, model = small(), small()
    install(source, *DROPOUT[there])
    install(model, *DROPOUT[here])
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    before = copy.deepcopy(source.state_dict())
    assert distance(eval_output(source, x), eval_output(model, x)) > 0.01
    assert transfer(source, model, x[:2]) is model
    assert distance(eval_output(source, x), eval_output(model, x)) < 1e-12
    assert all(torch.equal(value, before[key]) for key, value in source.state_dict().items())
    same = all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert same == (here == there or "classic" not in f"{here} {there}")  # what needs no rescaling stays, bit for bit


def test_weights_that_can_not_be_given_on_are_refused_and_the_model_stays_as_it_was() -> None:
    def of(layer: nn.Module, between: nn.Module) -> nn.Module:
        return nn.Sequential(between, layer, between, linear())

    model = of(Dropout(0.5), nn.Sigmoid())
    before = copy.deepcopy(model.state_dict())
    for source, error, message in (
        (of(Classic(0.5), nn.Sigmoid()), ValueError, "Sigmoid"),  # nothing can take the factor
        (of(Dropout(0.5), nn.Tanh()), ValueError, "compute something else"),
        (nn.Sequential(linear(), Dropout(0.5), linear()), RuntimeError, "state_dict"),
    ):
        with pytest.raises(error, match=message):
            transfer(source, model, torch.randn(3, 8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    transfer(of(Classic(0.5), nn.Sigmoid()), of(Classic(0.5), nn.Sigmoid()), torch.randn(3, 8))  # the same factor

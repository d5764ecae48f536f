"""Laws of building: what the configuration says is what is made, and the rest is as it was."""

from functools import partial

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from dropout_lab.dropout import Dropout
from dropout_lab.jobs.build import (
    build_data,
    build_lr_scheduler,
    build_module,
    build_network,
    build_optimizer,
    build_rates,
    instantiate,
    parameter_groups,
)
from dropout_lab.jobs.plan import plan


@pytest.fixture(scope="module")
def config():
    return plan(["dropout=classic", "dropout.p=0.3", "optimizer.lr=0.25"]).jobs[0].config


@pytest.fixture(scope="module")
def made(config):
    """The data, the network, and the paths of its layers."""
    data = build_data(config)
    network = build_network(config, data)
    return data, network.net, network.layers


def weights(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_lists_and_dictionaries_are_handed_over_as_plain_python():
    found = instantiate(OmegaConf.create({"_target_": "builtins.dict", "widths": [1, 2], "more": {"x": [3]}}))
    assert (type(found["widths"]), type(found["more"]), type(found["more"]["x"])) == (list, dict, list)


def test_every_name_leads_to_a_module_and_every_dropout_layer_has_one(made):
    _, net, layers = made
    assert all(isinstance(net.get_submodule(path), nn.Module) for path in layers.values())
    installed = [layer for layer in net.modules() if isinstance(layer, Dropout)]
    assert [(layer.p, layer.scaling) for layer in installed] == [(0.3, "classic")] * 3
    assert {layer.name for layer in installed} <= set(layers)


def test_the_initial_weights_are_drawn_from_torch_s_generator(config, made):
    data, *_ = made
    nets = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        nets.append(weights(build_network(config, data).net))
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_channels_last_is_how_the_weights_of_convolutions_lie(config, made):
    data, *_ = made
    for last in (True, False):
        other = build_network(OmegaConf.merge(config, {"channels_last": last}), data).net
        weight = other.blocks[1].conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == last


def test_a_model_decides_what_the_data_left_open(config, monkeypatch):
    from dropout_lab.models.small import CNN

    monkeypatch.setattr(CNN, "wants", staticmethod(lambda **options: (3, 16)), raising=False)
    assert build_data(config).shape == (3, 16, 16)


def test_a_model_that_is_not_there_is_told_by_its_name(config):
    with pytest.raises(ValueError, match=r"model\..*dropout_lab\.models\.Nothing"):
        build_data(OmegaConf.merge(config, {"model": {"_target_": "dropout_lab.models.Nothing"}}))


def test_a_schedule_is_called_without_hydra_s_checks():
    """They take 0.3 ms a step."""
    config = plan(["dropout_schedule=linear"]).jobs[0].config
    net = nn.Sequential(nn.Linear(4, 4), Dropout(0.4))
    rates = build_rates(config, net)
    ((_, schedule),) = rates.rates.values()
    assert type(schedule) is partial
    assert schedule.func.__module__.startswith("dropout_lab.")


def test_the_optimizer_has_the_settings_of_the_configuration_and_all_the_weights(config, made):
    data, net, _ = made
    before = weights(net)
    optimizer = build_optimizer(config, build_module(config, net), data)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))
    assert torch.equal(weights(net), before)


def test_matching_rescales_the_weights_behind_dropout(config):
    data = build_data(config)
    torch.manual_seed(0)
    net = build_network(config, data).net
    before = {name: value.clone() for name, value in net.named_parameters()}
    config = plan(["dropout=classic", "dropout.p=0.3", "optimizer.match=inverted"]).jobs[0].config
    build_optimizer(config, build_module(config, net), data)
    changed = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all(torch.allclose(dict(net.named_parameters())[name], before[name] / 0.7) for name in changed)


TORCH = "lr_scheduler._target_=torch.optim.lr_scheduler"
OTHER = ["~lr_scheduler.T_max", "~lr_scheduler.interval"]  # as a fork's own file may be


@pytest.mark.parametrize(
    ("words", "interval", "key", "total"),
    [
        ([], "epoch", "T_max", 3),
        (["lr_scheduler.interval=step"], "step", "T_max", 12),
        (["lr_scheduler.interval=step", "lr_scheduler.T_max=5"], "step", "T_max", 5),
        (["lr_scheduler.T_max=${trainer.max_epochs}", "trainer.max_epochs=7"], "epoch", "T_max", 7),
        ([f"{TORCH}.LinearLR", "~lr_scheduler.T_max", "lr_scheduler.total_iters=training"], "epoch", "total_iters", 3),
        ([f"{TORCH}.StepLR", *OTHER, "lr_scheduler.step_size=2"], "epoch", "step_size", 2),
    ],
)
def test_the_length_of_training_is_in_the_unit_of_the_scheduler_s_interval(words, interval, key, total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    found = build_lr_scheduler(plan(words).jobs[0].config, optimizer, epochs=3, steps=12)
    assert found["interval"] == interval
    assert getattr(found["scheduler"], key) == total


def groups(net, *no_decay):
    module = nn.Module()
    module.net = net
    return [[*group["params"]] for group in parameter_groups(module, no_decay)]


class Learned(Dropout):
    """Has a parameter of its own."""

    def __init__(self):
        super().__init__(0.5)
        self.logit = nn.Parameter(torch.zeros(1))


def test_parameters_without_decay_are_a_strategy_s_own_and_those_of_the_kinds_that_are_named():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), Learned(), nn.MultiheadAttention(3, 1), nn.Linear(3, 1))
    names = {parameter: name for name, parameter in net.named_parameters()}
    biases = {"0.bias", "1.bias", "3.in_proj_bias", "3.out_proj.bias", "4.bias"}
    wanted = {"bias": biases, "norm": {"1.weight", "1.bias"}, "dropout": set()}
    for kinds in ([], ["bias"], ["norm"], ["dropout"], ["bias", "norm", "dropout"]):
        rest, *spared = groups(net, *kinds)
        assert {names[each] for part in spared for each in part} == {"2.logit"}.union(*(wanted[kind] for kind in kinds))
        assert {*rest, *(each for part in spared for each in part)} == set(net.parameters())


def test_shared_and_frozen_parameters_are_there_once_or_not():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    net[1].weight = net[0].weight
    assert [len(group) for group in groups(net)] == [3]


def test_matching_keeps_the_groups_without_decay():
    words = ["dropout=classic", "dropout.p=0.3", "optimizer.match=inverted", "optimizer.weight_decay=0.1"]
    config = plan([*words, "optimizer.no_decay=[bias]"]).jobs[0].config
    data = build_data(config)
    net = build_network(config, data).net
    optimizer = build_optimizer(config, build_module(config, net), data)
    decays = {each: group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    for name, parameter in net.named_parameters():
        assert (decays[parameter] == 0) == name.endswith("bias")
    assert sorted(set(decays.values())) == pytest.approx([0, 0.1 * 0.7**2, 0.1])


def test_an_optimizer_that_knows_no_decay_has_none_to_leave_out():
    config = (
        plan(["optimizer._target_=torch.optim.Rprop", "~optimizer.momentum", "~optimizer.weight_decay"]).jobs[0].config
    )
    data = build_data(config)
    net = build_network(config, data).net
    config.optimizer.no_decay = ["bias"]
    with pytest.raises(ValueError, match=r"^no_decay=\['bias'\]: must be \[\], as Rprop has no weight decay"):
        build_optimizer(config, build_module(config, net), data)

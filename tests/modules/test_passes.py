"""Several passes in a step: the first alone counts in running statistics and is watched; masks differ between them."""

import copy

import pytest
import torch
from classifying import data as samples
from classifying import made, network, trainer
from torch import nn

from dropout_lab.activations import ActivationStats
from dropout_lab.dropout import Dropout, Placement, install, mask_keys
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.passes import first_counts
from dropout_lab.train.recipes import sync_batchnorm

NORMS = [
    *(lambda: nn.BatchNorm1d(5), lambda: nn.BatchNorm1d(5, momentum=None), lambda: nn.InstanceNorm1d(5)),
    lambda: nn.InstanceNorm1d(5, track_running_stats=True),
    lambda: nn.BatchNorm1d(5, track_running_stats=False),
    lambda: nn.BatchNorm1d(5).eval(),
]


@pytest.mark.parametrize("make", NORMS)
def test_running_statistics_are_those_after_the_first_pass_and_each_pass_is_normalised_as_alone(make):
    norm, passes = make(), torch.randn(3, 4, 5, 6)
    alone = copy.deepcopy(norm)
    net = nn.Sequential(norm)
    with first_counts(net):
        given = [net(x) for x in passes]
    wanted = [copy.deepcopy(alone)(x) for x in passes]
    alone(passes[0])
    assert all(torch.equal(a, b) for a, b in zip(norm.state_dict().values(), alone.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True))


def test_statistics_are_back_after_an_error():
    net = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))
    net(x := torch.randn(4, 5))
    with pytest.raises(RuntimeError), first_counts(net):
        net(net(x))
    assert net[0].num_batches_tracked == 2


def test_batchnorm_of_all_processes_together_keeps_its_statistics_too(monkeypatch):
    monkeypatch.setattr(sync_batchnorm, "_total", lambda tensor: tensor)
    monkeypatch.setattr(sync_batchnorm.dist, "get_world_size", lambda: 1)
    norm = nn.BatchNorm1d(5)
    norm.__class__ = sync_batchnorm.CpuSyncBatchNorm
    net, x = nn.Sequential(norm), torch.randn(2, 4, 5)
    with first_counts(net):
        net(x[0])
        net(x[1])
    torch.testing.assert_close(norm.running_mean, 0.1 * x[0].mean(0))
    assert norm.num_batches_tracked == 1


class Twice(nn.Module):
    """Calls one dropout layer twice in a forward."""

    def __init__(self):
        super().__init__()
        self.drop, self.out = nn.Dropout(0.0), nn.Linear(9, 3)

    def forward(self, x):
        return self.out(self.drop(self.drop(x.flatten(1))))


def test_a_layer_called_twice_in_a_forward_has_four_masks_in_two_passes():
    net, seen = Twice(), []
    install(net, Dropout, Placement("existing", p=0.5))
    net.drop.register_forward_hook(lambda _, args, out: seen.append(out != 0))
    x = torch.ones(8, 1, 3, 3)
    with mask_keys(0, 0, range(8)):
        net(x)
        net(x)
    first, both, again, last = seen
    assert not torch.equal(first, again)
    assert torch.equal(first & both, both)
    assert not torch.equal(both, last)
    with mask_keys(0, 0, range(8)):  # the first pass is that of a module with one
        net(x)
    assert torch.equal(seen[4], first)
    assert torch.equal(seen[5], both)


class Several(Classifier):
    """Its further passes see other inputs, so that they would show in what is watched."""

    passes = 3

    def loss(self, batch):
        first = super().loss(batch)
        for _ in range(2):
            self.net(batch[0] + 100)
        return first


def watched(kind, path, make=network):
    """What a step of training leaves in the file of statistics."""
    torch.manual_seed(0)
    net = make()
    install(net, Dropout, Placement("existing", p=0.5))
    module = made(net)
    module.__class__ = kind
    fit = trainer(1, callbacks=[ActivationStats(every_n_steps=1, path=path)])
    fit.fit(module, samples())
    assert not net._forward_hooks
    return path.read_text()


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:.*smaller than the log")
@pytest.mark.parametrize("make", [lambda: network(nn.Dropout(0.0)), Twice])
def test_the_first_pass_of_a_step_is_watched_as_that_of_a_module_with_one(make, tmp_path):
    several, one = watched(Several, tmp_path / "several", make), watched(Classifier, tmp_path / "one", make)
    assert several == one
    assert ("call2" in one) == (make is Twice)

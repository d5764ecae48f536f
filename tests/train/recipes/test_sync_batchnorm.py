"""BatchNorm over all processes: here of one; test_processes.py has the law for several."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dropout_lab.train.recipes.sync_batchnorm import CpuSyncBatchNorm, SyncBatchNorm


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4), (6, 3, 4, 5)])
def test_one_process_computes_what_torch_does(options, shape, group):
    torch.manual_seed(0)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    theirs, ours = (kind(3, **options).double() for _ in range(2))
    if theirs.affine:
        nn.init.uniform_(theirs.weight)
        nn.init.uniform_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    SyncBatchNorm().apply(nn.Sequential(ours, nn.Linear(1, 1)))
    for _ in range(2):
        x = torch.randn(shape, dtype=torch.float64) * 3 + 5
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [layer(one) for layer, one in zip((theirs, ours), inputs, strict=True)]
        for output in outputs:
            output.sin().sum().backward()
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-10, atol=1e-12)
    for value, expected in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-12, atol=1e-12)


def test_half_precision_is_computed_in_single_as_torch_does(group):
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    SyncBatchNorm().apply(ours)
    x = torch.randn(64, 3).to(torch.bfloat16) + 100
    assert ours(x).dtype == torch.bfloat16
    torch.testing.assert_close(ours(x), theirs(x), rtol=0.01, atol=0.01)


def test_layers_are_put_back_as_they_were(group):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm1d(2)), nn.ReLU())
    tensors = [*model.parameters(), *model.buffers()]
    plugin = SyncBatchNorm()
    assert [type(layer) for layer in plugin.apply(model).modules()].count(CpuSyncBatchNorm) == 2
    assert plugin.revert(model) is model
    assert (type(model[0]), type(model[1][0])) == (nn.BatchNorm2d, nn.BatchNorm1d)
    assert all(a is b for a, b in zip([*model.parameters(), *model.buffers()], tensors, strict=True))

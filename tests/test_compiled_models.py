"""Laws of the meter under torch.compile: one graph while it counts, one while it idles, the numbers of eager mode."""

import lightning as L
import pandas as pd
import pytest
import torch
from small_networks import convolutional
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from dropout_lab.activations import ActivationStats, Meter, Tap, taps_of
from dropout_lab.dropout import Dropout

# Lightning advises on loader workers and, where SLURM is installed, on srun, and uses a pytree check torch has renamed
LIGHTNING = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:The `srun` command"
)
pytestmark = [pytest.mark.slow, LIGHTNING]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = convolutional(Dropout(0.5, mask="channel"), size=8, inputs=3, outputs=10)
    return net.append(nn.Dropout(0.2))


def watched(model: nn.Module) -> Meter:
    meter = Meter(taps_of(model))
    meter.attach()
    return meter


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_statistics_are_those_of_eager_mode(backend):
    model, x = network().eval(), torch.randn(16, 3, 8, 8)
    meter = watched(model)
    found = []
    for run in (model, torch.compile(model, backend=backend, fullgraph=True)):
        for batch in x.split(8):
            meter.start("eval")
            run(batch)
            meter.stop()
        readings = meter.flush()
        assert readings.batches["eval"] == 2
        found.append((readings.stats("eval"), readings.gains("eval")))
    (eager, eager_gains), (compiled, compiled_gains) = found
    for name, one in eager.items():
        assert (compiled[name].count, compiled[name].zeros) == (one.count, one.zeros)
        assert compiled[name].mean == pytest.approx(one.mean, rel=1e-5, abs=1e-7)
        assert compiled[name].std == pytest.approx(one.std, rel=1e-5)
    for name, gain in eager_gains.items():
        assert compiled_gains[name].value == pytest.approx(gain.value, rel=1e-5, nan_ok=True)


def test_one_graph_counts_and_one_idles():
    model, x = network(), torch.randn(8, 3, 8, 8)
    meter = watched(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for step in range(12):
        if step % 5 == 0:
            meter.start("train")
        compiled(x).sum().backward()
        meter.stop()
    assert graphs() == 2
    readings = meter.flush()
    assert readings.batches["train"] == 3
    assert {one.count for one in readings.stats("train").values()} == {3 * 8 * 288, 3 * 8 * 10}


def test_a_short_last_batch_counts_its_samples():
    """It compiles a second time, for any batch size: torch's own rule."""
    model = network()
    meter = watched(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        for batch in torch.randn(21, 3, 8, 8).split(8):  # 8, 8 and 5
            meter.start("train")
            compiled(batch).sum().backward()
            meter.stop()
    assert {one.count for one in meter.flush().stats("train").values()} == {2 * 21 * 288, 2 * 21 * 10}
    assert graphs() == 2


def test_a_compiled_train_gain_is_the_fingerprint():
    model = network()
    meter = watched(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(10):
        meter.start("train")
        compiled(torch.randn(64, 3, 8, 8))
        meter.stop()
    gain = meter.flush().gains("train")["02_2"]
    assert abs(gain.value - 1) < 4 * gain.se < 0.2


def test_recomputation_in_a_compiled_backward_counts_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(10, 10), nn.ReLU())

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=False)

    model = Net()
    meter = Meter([Tap("relu", model.block[1])])
    meter.attach()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        meter.start("train")
        compiled(torch.randn(4, 10, requires_grad=True)).sum().backward()
        meter.stop()
    assert meter.flush().stats("train")["relu"].count == 80


def test_a_meter_that_comes_back_is_seen_again():
    """As between trainer.fit and trainer.validate."""
    model, x = network().eval(), torch.randn(8, 3, 8, 8)
    meter = watched(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        meter.start("eval")
        compiled(x)
        meter.stop()
        meter.detach()
        meter.attach()
    assert meter.flush().stats("eval")["01_1"].count == 2 * 8 * 288


class Compiled(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()
        self.net.compile(backend="aot_eager")

    def forward(self, x):
        return self.net(x)

    def training_step(self, x, batch_idx):
        return self.net(x).square().mean()

    def validation_step(self, x, batch_idx):
        self.net(x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(module, path):
    batches = DataLoader([torch.randn(8, 3, 8, 8)] * 3, batch_size=None)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    callback = ActivationStats(every_n_steps=2, path=path / "activations.csv")
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, default_root_dir=path, callbacks=[callback], **quiet
    )
    trainer.fit(module, batches, batches)
    return pd.read_csv(path / "activations.csv")


def test_lightning_counts_a_compiled_model_and_the_probe_compiles_nothing(tmp_path):
    table = fit(Compiled(), tmp_path)
    assert table.query("mode == 'train' and stat == 'count' and layer == '02_2'").value.tolist() == [2 * 8 * 288] * 2
    assert table.query("mode == 'eval' and stat == 'count' and layer == '02_2'").value.tolist() == [3 * 8 * 288] * 2
    assert (table.query("mode == 'probe' and stat == 'ratio_se' and layer == '02_2'").value > 0).all()
    assert graphs() == 4  # train counting and idle, eval counting and the sanity check's, which is idle


def test_hooks_that_a_compiled_model_skips_are_reported(tmp_path):
    module = Compiled()
    module.net(torch.randn(8, 3, 8, 8))
    with torch.inference_mode():
        module.net.eval()(torch.randn(8, 3, 8, 8))
    module.net.train()
    with pytest.warns(UserWarning, match="no hook ran at 00_0, .*, 05_5: the model was compiled and called before"):
        fit(module, tmp_path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_hooks_that_a_compiled_part_skips_are_reported_by_name(tmp_path, wrapped):
    class Half(Compiled):
        def __init__(self):
            super().__init__()
            first, *rest = network()
            self.net = nn.Sequential(first, nn.Sequential(*rest))
            if wrapped:
                self.net[1] = torch.compile(self.net[1], backend="aot_eager")
            else:
                self.net[1].compile(backend="aot_eager")
            self.net(torch.randn(8, 3, 8, 8))

    with pytest.warns(UserWarning, match="train batches passed and no hook ran at 01_1_.*0, 02_1_.*: the model was"):
        fit(Half(), tmp_path)

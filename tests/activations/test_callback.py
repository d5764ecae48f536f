"""Laws of the Lightning callback: what counts, what is logged when, and what is left behind."""

import copy
import warnings
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from memory_logger import Memory
from small_networks import dense
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dropout_lab.activations import ActivationStats, records, taps_of
from dropout_lab.activations.taps import chosen_for_loggers
from dropout_lab.dropout import Dropout, Placement, install

# Lightning advises on loader workers and, where SLURM is installed, on srun, and uses a pytree check torch has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:The `srun` command"
)

NAME, NAME_IN = "02_2", "02_2_in"


class Toy(L.LightningModule):
    def __init__(self, layer=None):
        super().__init__()
        self.net = dense(layer or Dropout(0.5), hidden=16)
        self.relu_outputs: dict[str, list[torch.Tensor]] = {"train": [], "eval": []}

    def forward(self, x):
        return self.net(x)

    def keep(self, mode, x):
        with torch.no_grad():
            self.relu_outputs[mode].append(self.net[0](x).relu())

    def training_step(self, batch, batch_idx):
        self.keep("train", batch[0])
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        if not self.trainer.sanity_checking and dataloader_idx == 0:
            self.keep("eval", batch[0])
        self.net(batch[0])

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def data(samples=50, batch=16, shift=0.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator) + shift
    return DataLoader(TensorDataset(x, torch.zeros(samples)), batch_size=batch)


def trainer(path, *callbacks, **options):
    options = {
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": Memory(),
        **options,
    }
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(default_root_dir=path, callbacks=list(callbacks), **quiet, **options)


def stats(path, **options):
    return ActivationStats(**options, path=path / "activations.csv")


def csv(path):
    return pd.read_csv(path / "activations.csv")


def test_the_whole_validation_set_counts_and_nothing_of_the_sanity_check(tmp_path):
    toy = Toy()
    fitter = trainer(tmp_path, stats(tmp_path), num_sanity_val_steps=2)
    fitter.fit(toy, data(), data(37))
    _, metrics = fitter.logger.with_key("_eval/")[0]
    seen = torch.cat(toy.relu_outputs["eval"]).double().numpy()
    table = csv(tmp_path).set_index(["mode", "layer", "stat"])["value"]
    assert table["eval", NAME_IN, "count"] == seen.size == 37 * 16
    assert metrics[f"activation_mean_eval/{NAME_IN}"] == pytest.approx(seen.mean(), rel=1e-6)
    assert metrics[f"activation_std_eval/{NAME_IN}"] == pytest.approx(seen.std(), rel=1e-6)
    assert metrics[f"activation_zeros_eval/{NAME_IN}"] == (seen == 0).mean()


def test_one_training_batch_in_n_counts(tmp_path):
    toy = Toy()
    fitter = trainer(tmp_path, ActivationStats(every_n_steps=3))
    fitter.fit(toy, data(80), data())  # batches 0 and 3 of 5
    seen = torch.cat([toy.relu_outputs["train"][0], toy.relu_outputs["train"][3]]).double().numpy()
    _, metrics = fitter.logger.with_key("_train/")[0]
    assert metrics[f"activation_mean_train/{NAME_IN}"] == pytest.approx(seen.mean(), rel=1e-6)


def test_one_call_a_flush_against_the_global_step_with_the_keys_of_the_contract(tmp_path):
    fitter = trainer(tmp_path, ActivationStats(), max_epochs=2)
    fitter.fit(Toy(), data(), data())
    assert [step for step, _ in fitter.logger.calls] == [4, 8]
    streams = {f"{stat}_{mode}" for stat in ("mean", "std", "zeros") for mode in ("train", "eval")}
    layers, positive = ("00_0", "01_1", NAME_IN, NAME, "03_3"), ("01_1", NAME_IN, NAME)
    expected = {f"activation_{stat}/{name}" for stat in streams | {"shift"} for name in layers}
    expected |= {f"activation_ratio/{name}" for name in positive}
    expected |= {f"dropout_gain_{mode}/{NAME}" for mode in ("train", "eval")} | {f"dropout_p/{NAME}"}
    for epoch, (_, metrics) in enumerate(fitter.logger.calls):
        assert metrics.pop("epoch") == epoch
        assert set(metrics) == expected


def test_the_csv_is_long_and_has_one_header(tmp_path):
    fitter = trainer(tmp_path, stats(tmp_path), max_epochs=2)
    fitter.fit(Toy(), data(), data())
    table = csv(tmp_path)
    assert list(table.columns) == ["step", "epoch", "mode", "layer", "stat", "value"]
    assert sorted(table.step.unique()) == [4, 8]
    assert sorted(table.epoch.unique()) == [0, 1]
    assert set(table["mode"]) == {"train", "eval", "probe"}
    assert {"mean", "std", "zeros", "gain", "gain_se", "count", "shift", "ratio"} <= set(table.stat)
    assert table.value.dtype == float


@pytest.mark.parametrize(
    ("scaling", "train", "eval_"), [("inverted", 1, 1), ("classic", 0.5, 0.5), ("unscaled", 0.5, 1)]
)
def test_gains_reach_the_logger(tmp_path, scaling, train, eval_):
    fitter = trainer(tmp_path, stats(tmp_path, every_n_steps=1))
    L.seed_everything(0, verbose=False)
    fitter.fit(Toy(Dropout(0.5, scaling=scaling)), data(400), data(400))
    metrics = fitter.logger.calls[-1][1]
    se = csv(tmp_path).query("stat == 'gain_se' and mode == 'train'").value.item()
    assert abs(metrics[f"dropout_gain_train/{NAME}"] - train) < 4 * se < 0.1
    assert metrics[f"dropout_gain_eval/{NAME}"] == pytest.approx(eval_, rel=1e-6)


def test_the_phase_is_the_trainers_not_the_modules(tmp_path):
    """Monte Carlo dropout in validation: the module is in train mode, the statistics are those of eval."""

    class MonteCarlo(Toy):
        def on_validation_epoch_start(self):
            self.net.train()

    fitter = trainer(tmp_path, stats(tmp_path))
    fitter.fit(MonteCarlo(Dropout(0.5, scaling="unscaled")), data(), data(200))
    assert fitter.logger.calls[-1][1][f"dropout_gain_eval/{NAME}"] == pytest.approx(0.5, abs=0.1)
    assert csv(tmp_path).query(f"mode == 'eval' and stat == 'count' and layer == '{NAME}'").value.item() == 3200


@pytest.mark.parametrize(
    "options",
    [{"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}, {"precision": "bf16-true"}, {"max_steps": 5}],
    ids=lambda options: "-".join(options),
)
def test_the_ways_of_training_do_not_change_what_counts(tmp_path, options):
    """Accumulated gradients, mixed and low precision, an early end; the first layer frozen."""
    toy = Toy()
    toy.net[0].requires_grad_(False)
    fitter = trainer(tmp_path, stats(tmp_path, every_n_steps=1), **options)
    fitter.fit(toy, data(80), data(37))
    counts = csv(tmp_path).query(f"stat == 'count' and layer == '{NAME}'").set_index("mode").value
    assert counts["train"] == 80 * 16
    assert counts["eval"] == 37 * 16
    seen = torch.cat(toy.relu_outputs["eval"]).double().mean().item()
    assert fitter.logger.calls[-1][1][f"activation_mean_eval/{NAME_IN}"] == pytest.approx(seen, rel=1e-6)


def test_several_validations_in_an_epoch_share_it_out(tmp_path):
    fitter = trainer(tmp_path, stats(tmp_path, every_n_steps=1), val_check_interval=2)
    fitter.fit(Toy(), data(80), data())
    counts = csv(tmp_path).query(f"stat == 'count' and mode == 'train' and layer == '{NAME}'")
    assert counts[["step", "value"]].values.tolist() == [[2, 512], [4, 512], [5, 256]]


def test_only_the_first_validation_loader_counts(tmp_path):
    toy = Toy()
    fitter = trainer(tmp_path, ActivationStats())
    fitter.fit(toy, data(), [data(37), data(50, shift=5)])
    seen = torch.cat(toy.relu_outputs["eval"]).double().numpy()
    assert fitter.logger.calls[-1][1][f"activation_mean_eval/{NAME_IN}"] == pytest.approx(seen.mean(), rel=1e-6)


NO_VALIDATION = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # as these tests want it


@NO_VALIDATION
def test_training_without_validation_is_logged_alone(tmp_path):
    fitter = trainer(tmp_path, ActivationStats())
    fitter.fit(Toy(), data())
    assert [step for step, _ in fitter.logger.calls] == [4]
    assert f"dropout_gain_train/{NAME}" in fitter.logger.calls[0][1]
    assert not any("_eval/" in key for key in fitter.logger.calls[0][1])


def test_validate_alone_counts_eval(tmp_path):
    fitter = trainer(tmp_path, stats(tmp_path))
    fitter.validate(Toy(), data(37), verbose=False)
    assert csv(tmp_path).query(f"mode == 'eval' and stat == 'count' and layer == '{NAME}'").value.item() == 592


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_a_model_built_late_is_watched(tmp_path, stage):
    """In ``configure_model``, as sharded models are: after the setup of callbacks."""

    class Late(Toy):
        def __init__(self):
            super().__init__()
            del self.net

        def configure_model(self):
            if not hasattr(self, "net"):
                self.net = Toy().net

    fitter = trainer(tmp_path, stats(tmp_path))
    fitter.fit(Late(), data(), data(37)) if stage == "fit" else fitter.validate(Late(), data(37), verbose=False)
    assert csv(tmp_path).query(f"mode == 'eval' and stat == 'count' and layer == '{NAME}'").value.item() == 592


def test_test_alone_counts_nothing_and_hangs_nothing_on_the_model(tmp_path):
    toy, fitter, callback = Toy(), trainer(tmp_path, stats(tmp_path)), ActivationStats()
    fitter.callbacks.append(callback)
    fitter.test(toy, data(), verbose=False)
    assert not fitter.logger.with_key("activation_")
    assert not (tmp_path / "activations.csv").exists()
    assert not callback.meter.taps


@pytest.mark.parametrize("stop", ["max_steps", "should_stop", "EarlyStopping"])
def test_an_early_end_logs_what_had_passed(tmp_path, stop):
    """In the middle of the second epoch, or after the second of many; each training batch is in exactly one flush."""

    class Stops(Toy):
        def training_step(self, batch, batch_idx):
            self.trainer.should_stop |= stop == "should_stop" and self.global_step == 6
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("val/loss", 1.0)

    early = [L.pytorch.callbacks.EarlyStopping("val/loss", patience=1)] if stop == "EarlyStopping" else []
    toy, steps = Stops(), {"max_steps": 7} if stop == "max_steps" else {}
    fitter = trainer(tmp_path, stats(tmp_path, every_n_steps=1), *early, max_epochs=9, **steps)
    fitter.fit(toy, data(64), data(37))  # 4 batches an epoch
    counts = csv(tmp_path).query(f"stat == 'count' and mode == 'train' and layer == '{NAME}'").value
    assert counts.sum() / 256 == len(toy.relu_outputs["train"]) == {"EarlyStopping": 8}.get(stop, 7)
    assert not any(module._forward_hooks for module in toy.modules())


def test_the_test_set_does_not_count(tmp_path):
    toy, fitter = Toy(), trainer(tmp_path, stats(tmp_path))
    fitter.fit(toy, data(), data())
    before = csv(tmp_path)
    fitter.test(toy, data(), verbose=False)
    pd.testing.assert_frame_equal(before, csv(tmp_path))


def test_the_model_is_left_without_hooks_also_after_an_exception(tmp_path):
    class Fails(Toy):
        def training_step(self, batch, batch_idx):
            if self.current_epoch == 1 and batch_idx == 2:
                raise RuntimeError("stop here")
            return super().training_step(batch, batch_idx)

    for toy in (Toy(), Fails()):
        folder = tmp_path / type(toy).__name__
        fitter = trainer(folder, stats(folder, every_n_steps=1), max_epochs=2)
        if isinstance(toy, Fails):
            with pytest.raises(RuntimeError, match="stop here"):
                fitter.fit(toy, data(), data())
        else:
            fitter.fit(toy, data(), data())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in toy.modules())
    assert csv(tmp_path / "Fails").epoch.unique().tolist() == [0]  # the finished epoch is there, and can be read


@pytest.mark.filterwarnings("ignore:Found 6 module")  # Lightning's own, which doesn't say that dropout is off
def test_a_model_left_in_eval_mode_is_named(tmp_path):
    toy = Toy()
    toy.eval()
    fitter = trainer(tmp_path, ActivationStats())
    with pytest.warns(UserWarning, match=f"dropout off: {NAME} in eval mode"):
        fitter.fit(toy, data(), data())


@pytest.mark.parametrize("layer", [Dropout(0), nn.Dropout(0)])
def test_a_layer_that_drops_nothing_may_be_in_eval_mode(tmp_path, layer):
    toy = Toy(layer)
    layer.eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, ActivationStats()).fit(toy, data(), data())
    assert not any("dropout off" in str(warning.message) for warning in caught)


def test_training_is_the_same_with_and_without_the_callback(tmp_path):
    """No gradient, no BatchNorm statistic, no generator state, no mode: nothing that training sees is touched."""
    ends = []
    for callbacks in ([], [ActivationStats(every_n_steps=1)]):
        L.seed_everything(3, verbose=False)
        toy = Toy()
        toy.net.insert(1, nn.BatchNorm1d(16))
        toy.net.insert(5, nn.Dropout(0.3))
        trainer(tmp_path, *callbacks, max_epochs=2).fit(toy, data(), data())
        ends.append((copy.deepcopy(toy.state_dict()), torch.get_rng_state(), [m.training for m in toy.modules()]))
    assert ends[0][0].keys() == ends[1][0].keys()  # the sums are no buffers
    for key, value in ends[0][0].items():
        assert torch.equal(value, ends[1][0][key]), key
    assert torch.equal(ends[0][1], ends[1][1])
    assert ends[0][2] == ends[1][2]


def test_installed_layers_go_by_the_name_that_install_gave(tmp_path):
    toy = Toy(nn.Identity())
    install(toy.net, Dropout, Placement("activations", p=0.5))
    fitter = trainer(tmp_path, ActivationStats())
    fitter.fit(toy, data(), data())
    metrics = fitter.logger.calls[-1][1]
    assert "dropout_gain_train/01_1" in metrics
    assert metrics["activation_zeros_train/01_1_in"] < metrics["activation_zeros_train/01_1"]


class Run(WandbLogger):
    """Holds what it is given; nothing is sent anywhere."""

    def __init__(self):
        self.logged, self.summary = [], {}

    experiment = property(lambda self: SimpleNamespace(log=self.logged.append, summary=self.summary))
    log_metrics = log_hyperparams = log_graph = save = finalize = lambda self, *_, **__: None
    after_save_checkpoint = log_metrics
    name = version = save_dir = "here"

    def pictures(self):
        return [given for given in self.logged if "activation_pictures/profile" in given]


def test_wandb_gets_two_pictures_of_the_run(tmp_path):
    run = Run()
    trainer(tmp_path, stats(tmp_path), max_epochs=2, logger=run).fit(Toy(), data(), data())
    (given,) = run.pictures()
    assert given["trainer/global_step"] == 8
    profile, shift = (given[f"activation_pictures/{name}"] for name in ("profile", "shift"))
    layers = ("00_0", "01_1", NAME_IN, NAME, "03_3")
    assert {line.name for line in profile.data} == {"train", "eval"}
    assert all(set(line.x) == set(layers) for line in profile.data)
    assert tuple(profile.layout.xaxis.categoryarray) == tuple(shift.data[0].y) == layers
    assert tuple(shift.data[0].x) == (4, 8)


def test_a_full_disk_costs_the_pictures_and_not_the_run(tmp_path):
    class Full(Run):
        @property
        def experiment(self):
            return SimpleNamespace(log=self.fails, summary=self.summary)

        def fails(self, given):
            raise OSError(28, "No space left on device")

    run = Full()
    with pytest.warns(UserWarning, match="W&B cannot store the pictures: No space left on device"):
        trainer(tmp_path, stats(tmp_path), logger=run).fit(Toy(), data(), data())
    assert "final/gain_eval" in run.summary


@pytest.mark.parametrize(("epochs", "steps"), [(8, [8, 16, 24, 32]), (3, [4, 8, 12]), (1, [4])])
@pytest.mark.slow
def test_pictures_come_after_each_quarter_of_the_epochs(tmp_path, monkeypatch, epochs, steps):
    monkeypatch.setattr("dropout_lab.activations.callback.APART", 0.0)
    run = Run()
    trainer(tmp_path, stats(tmp_path), max_epochs=epochs, logger=run).fit(Toy(), data(), data())
    assert [given["trainer/global_step"] for given in run.pictures()] == steps
    assert [given["activation_pictures/shift"].data[0].x[-1] for given in run.pictures()] == steps


def test_without_a_path_nothing_is_written_and_drawn_and_the_loggers_get_everything(tmp_path):
    run, memory = Run(), Memory()
    callback = ActivationStats(max_layers=2)
    with pytest.warns(UserWarning, match=r"dropout layers and evenly spaced others$"):
        trainer(tmp_path, callback, max_epochs=4, logger=[run, memory]).fit(Toy(), data(), data())
    assert list(tmp_path.iterdir()) == []
    assert run.pictures() == []
    assert "final/gain_eval" in run.summary
    assert memory.with_key("activation_mean_train/")


def test_the_summary_has_the_last_numbers_of_the_last_dropout_layer(tmp_path):
    toy, run = Toy(), Run()
    toy.net.append(nn.ReLU()).append(Dropout(0.5, scaling="classic"))
    nn.init.constant_(toy.net[3].bias, 5.0)  # so that what goes into the last layer has a clear mean: no gain is NaN
    trainer(tmp_path, stats(tmp_path), max_epochs=2, logger=run).fit(toy, data(400), data(400))
    table = csv(tmp_path).query("step == step.max() and layer == '05_5'").set_index(["mode", "stat"]).value
    expected = {"gain_train": ("train", "gain"), "gain_eval": ("eval", "gain"), "ratio": ("probe", "ratio")}
    assert run.summary == {f"final/{name}": table[place] for name, place in expected.items()}
    assert run.summary["final/gain_eval"] == pytest.approx(0.5)


def test_the_drop_probability_is_logged_as_it_is_when_it_changes(tmp_path):
    class Falls(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            pl_module.net[2].p = 0.5 - trainer.global_step / 100

    fitter = trainer(tmp_path, Falls(), ActivationStats(), max_epochs=2)
    fitter.fit(Toy(), data(), data())
    assert [metrics[f"dropout_p/{NAME}"] for _, metrics in fitter.logger.calls] == pytest.approx([0.47, 0.43])


def deep(layers):
    toy = Toy()
    toy.net = nn.Sequential(nn.Linear(4, 4), *(nn.ReLU() for _ in range(layers)), Dropout(0.5), nn.Linear(4, 2))
    return toy


def test_the_loggers_get_at_most_max_layers_and_the_file_has_all(tmp_path):
    fitter = trainer(tmp_path, stats(tmp_path, max_layers=5))
    with pytest.warns(
        UserWarning,
        match=r"of 13 watched tensors the loggers get 5 \(max_layers\): .* others; activations.csv has all$",
    ) as caught:
        fitter.fit(deep(9), data(), data())
    assert sum("max_layers" in str(warning.message) for warning in caught) == 1
    (metrics,) = (metrics for _, metrics in fitter.logger.calls)
    logged = {key.partition("/")[2] for key in metrics} - {""}
    assert logged == {"00_0", "05_5", "10_10_in", "10_10", "11_11"}
    assert {"activation_mean_train/05_5", "dropout_gain_eval/10_10", "activation_shift/11_11"} <= set(metrics)
    assert csv(tmp_path).layer.nunique() == 13


@pytest.mark.parametrize("most", [13, None])
def test_no_warning_where_all_fit(tmp_path, most):
    fitter = trainer(tmp_path, ActivationStats(max_layers=most))
    fitter.fit(deep(9), data(), data())
    assert len({key.partition("/")[2] for key in fitter.logger.calls[0][1]} - {""}) == 13


def test_a_hundred_tensors_are_less_than_a_thousand_keys():
    """As the docstring says: the largest layers have a dropout layer's, a ReLU's and a BatchNorm's keys."""
    layers = [nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), Dropout(0.1)]
    net = nn.Sequential(*(copy.deepcopy(layer) for _ in range(50) for layer in layers))
    taps = taps_of(net)
    names = chosen_for_loggers(taps, 100)
    before = {tap.name for tap in taps if tap.before_norm}
    keys = set()
    for name in names:
        stats = {("train", s) for s in ("mean", "std", "zeros")} | {("eval", s) for s in ("mean", "std", "zeros")}
        stats |= {("probe", s) for s in ("shift", "ratio", "variance_ratio")}
        if f"{name}_in" in {tap.name for tap in taps}:
            stats |= {("train", "gain"), ("eval", "gain"), ("train", "p")}
        keys |= {records.key(records.Row(0, 0, mode, name, stat, 0.0), before) for mode, stat in stats} - {None}
    assert len(names) == 100
    assert 900 < len(keys) < 1000


def test_batches_without_a_leading_tensor_turn_the_probe_off_and_say_so(tmp_path):
    class Dicts(Toy):
        def training_step(self, batch, batch_idx):
            return super().training_step([batch["x"]], batch_idx)

        def validation_step(self, batch, batch_idx):
            super().validation_step([batch["x"]], batch_idx)

    loader = DataLoader([{"x": torch.randn(4)} for _ in range(20)], batch_size=10)
    fitter = trainer(tmp_path, ActivationStats())
    with pytest.warns(UserWarning, match="probe needs batches"):
        fitter.fit(Dicts(), loader, loader)
    assert f"dropout_gain_eval/{NAME}" in fitter.logger.calls[-1][1]
    assert not any("shift" in key for key in fitter.logger.calls[-1][1])


@pytest.mark.parametrize("layer", [Dropout(0.5), nn.Dropout(0.5)])
def test_a_module_without_a_forward_of_its_own_is_probed_through_its_network(tmp_path, layer):
    class Steps(Toy):
        forward = L.LightningModule.forward

    found = []
    for kind in (Toy, Steps):
        L.seed_everything(0, verbose=False)
        fitter = trainer(tmp_path / kind.__name__, ActivationStats())
        fitter.fit(kind(copy.deepcopy(layer)), data(), data())
        found.append(fitter.logger.calls[-1][1])
    assert found[0] == pytest.approx(found[1], nan_ok=True)
    assert f"activation_ratio/{NAME}" in found[1]


def test_a_network_that_takes_more_than_the_inputs_turns_the_probe_off_and_says_so(tmp_path):
    class Two(Toy):
        def forward(self, x, y):
            return self.net(x + y)

    fitter = trainer(tmp_path, ActivationStats())
    with pytest.warns(UserWarning, match=r"probe calls the model with the inputs alone: .*missing.*'y'"):
        fitter.fit(Two(), data(), data())
    assert f"dropout_gain_eval/{NAME}" in fitter.logger.calls[-1][1]
    assert not any("shift" in key for key in fitter.logger.calls[-1][1])


def test_integer_outputs_are_named_and_the_rest_is_logged(tmp_path):
    class Sign(nn.Module):
        def forward(self, x):
            return (x > 0).long()

    class Integers(Toy):
        def __init__(self):
            super().__init__()
            self.sign = Sign()
            self.net.append(Sign())

        def training_step(self, batch, batch_idx):
            self.keep("train", batch[0])
            self.net(batch[0])
            return self.net[:4](batch[0]).square().mean()

    fitter = trainer(tmp_path, ActivationStats(layers=["*"]))
    with pytest.warns(UserWarning, match="04_4: not a floating-point tensor, not counted"):
        fitter.fit(Integers(), data(), data())
    assert np.isfinite(fitter.logger.calls[-1][1]["activation_mean_train/03_3"])


def test_a_variance_that_cannot_be_trusted_is_named(tmp_path):
    class Far(nn.Module):
        def forward(self, x):
            return x + 1000

    toy = Toy(Far())
    with pytest.warns(UserWarning, match=f"the std of {NAME} is not reliable"):
        trainer(tmp_path, ActivationStats(layers=["02_*", "01_*"])).fit(toy, data(), data())


@NO_VALIDATION
def test_a_model_without_layers_to_watch_says_so(tmp_path):
    class Bare(Toy):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Bilinear(4, 4, 2))

        def training_step(self, batch, batch_idx):
            return self.net[0](batch[0], batch[0]).square().mean()

    with pytest.warns(UserWarning, match="nothing is logged"):
        trainer(tmp_path, ActivationStats()).fit(Bare(), data())


def test_patterns_choose_layers(tmp_path):
    fitter = trainer(tmp_path, ActivationStats(layers=["03_*"]))
    fitter.fit(Toy(), data(), data())
    assert {key.partition("/")[2] for key in fitter.logger.calls[-1][1]} == {"03_3", ""}  # and epoch


def test_the_variance_ratio_is_logged_where_a_batch_norm_reads(tmp_path):
    toy = Toy()
    toy.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), Dropout(0.5), nn.Linear(16, 8), nn.BatchNorm1d(8))
    fitter = trainer(tmp_path, ActivationStats())
    fitter.fit(toy, data(), data())
    found = {key: value for key, value in fitter.logger.calls[-1][1].items() if "variance" in key}
    assert list(found) == ["activation_variance_ratio/03_3"]
    assert found["activation_variance_ratio/03_3"] > 1


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("every_n_steps", [0, 2.5, None, True, "2"], "an integer >= 1"),
        ("probe_masks", [-1, None], "an integer >= 0"),
        ("probe_size", [0, None], "an integer >= 1"),
        ("max_layers", [1, False, 2.5], "an integer >= 2, or null"),
    ],
)
def test_settings_that_are_no_such_numbers_are_refused_by_name(key, values, allowed):
    for value in values:
        with pytest.raises(ValueError, match=f"^{key}={value}: must be {allowed}$"):
            ActivationStats(**{key: value})


def test_numbers_survive_a_half_written_last_line(tmp_path):
    trainer(tmp_path, stats(tmp_path)).fit(Toy(), data(), data())
    whole = (tmp_path / "activations.csv").read_bytes()
    (tmp_path / "activations.csv").write_bytes(whole[:-7])  # killed while writing
    trainer(tmp_path, stats(tmp_path)).fit(Toy(), data(), data())
    table = csv(tmp_path)
    assert len(table) == 2 * (whole.count(b"\n") - 1) - 1
    assert np.isfinite(table.value).all()


def test_a_checkpoint_that_is_validated_or_tested_brings_no_counts_along(tmp_path):
    class SaveWithinTheEpoch(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    callbacks = ActivationStats(every_n_steps=1), SaveWithinTheEpoch()
    trainer(tmp_path, *callbacks, limit_train_batches=2).fit(Toy(), data(), data())
    again = tmp_path / "again"
    trainer(again, stats(again)).validate(Toy(), data(), ckpt_path=tmp_path / "within.ckpt", verbose=False)
    assert set(csv(again)["mode"]) == {"eval", "probe"}
    trainer(again, stats(again)).test(Toy(), data(), ckpt_path=tmp_path / "within.ckpt", verbose=False)

"""Laws of every module: what it logs and when, which masks it draws, and that a run can go on."""

import math
from functools import partial
from types import SimpleNamespace

import lightning
import pytest
import torch
import torch.nn.functional as F
from classifying import BATCH, STEPS, data, direct, made, metrics_of, network, trainable, trained, trainer, weights
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from dropout_lab.activations.taps import model_of, taps_of
from dropout_lab.data import GlobalBatches
from dropout_lab.dropout import Dropout, Placement, ScheduledRates, install, mask_keys
from dropout_lab.dropout.graph.modes import dropout_only
from dropout_lab.dropout.schedules import linear
from dropout_lab.modules import base as module
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.columns import Column
from dropout_lab.runs.network import read_checkpoint

# Lightning advises on loader workers and log intervals; torch 2.15 on a class that Lightning uses.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*LeafSpec"
)


KEYS = {f"{part}/{key}" for part in ("val", "train_eval", "gap") for key in ("loss", "acc")}


class Penalised(Dropout):
    """Asks for small masks of its own parameter."""

    def __init__(self, p):
        super().__init__(p)
        self.weight = nn.Parameter(torch.tensor([3.0]))

    def penalty(self, fed, rows):
        return self.weight.square().sum()


def test_a_flush_is_one_call_against_the_global_step():
    classifier, samples, fitter = made(), data(), trainer(log_every_n_steps=2, num_sanity_val_steps=2)
    fitter.fit(classifier, samples)
    fitter.test(classifier, samples, verbose=False)
    found = [(step, metrics.pop("epoch"), set(metrics)) for step, metrics in fitter.logger.calls]
    assert found == [
        (1, 0, {"train/loss"}),
        (3, 0, {"train/loss"}),
        (5, 0, {"train/loss"} | KEYS),
        (6, 1, {"train/loss"}),
        (8, 1, {"train/loss"}),
        (10, 1, {"train/loss"} | KEYS),
        (10, 2, {"test/loss", "test/acc"}),
    ]


def test_the_sanity_check_neither_logs_nor_counts():
    classifier = made(lr=1e-12)  # so that the weights of the check are those of the validation
    samples = data()
    _, logger = trained(classifier, samples, num_sanity_val_steps=1, epochs=1)
    assert [step for step, _ in logger.series("val/loss")] == [STEPS]
    expected = direct(classifier.net, samples.prepare(samples.val.inputs), samples.val.targets)
    assert logger.last("val/loss") == pytest.approx(expected["loss"], rel=1e-5)


def test_lightnings_own_logging_is_not_used_in_steps(monkeypatch):
    """It takes 0.4 ms a step, logged or not."""
    calls, log = [], lightning.LightningModule.log

    def counted(self, name, *args, **kwargs):
        calls.append((self._current_fx_name, name))
        return log(self, name, *args, **kwargs)

    monkeypatch.setattr(lightning.LightningModule, "log", counted)
    trained(log_every_n_steps=1)
    assert {hook for hook, _ in calls} == {"on_validation_epoch_end"}
    assert {name for _, name in calls} >= KEYS


def test_callbacks_can_watch_a_metric(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/loss")
    _, logger = trained(callbacks=[checkpoint], enable_checkpointing=True, epochs=3)
    assert checkpoint.best_model_score.item() == pytest.approx(min(loss for _, loss in logger.series("val/loss")))


def test_the_training_loss_is_the_mean_over_the_steps_since_it_was_logged(monkeypatch):
    losses, step = [], Classifier.training_step

    def kept(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(Classifier, "training_step", kept)
    _, logger = trained(log_every_n_steps=2)
    means = [
        sum(losses[first:last]) / (last - first) for first, last in ((0, 2), (2, 4), (4, 5), (5, 7), (7, 9), (9, 10))
    ]
    assert [loss for _, loss in logger.series("train/loss")] == pytest.approx(means, rel=1e-6)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_without_validation_the_rest_of_an_epochs_training_loss_is_logged_at_its_end():
    samples, fitter = data(), trainer(log_every_n_steps=2)
    fitter.fit(made(), samples.train_dataloader())
    assert [step for step, _ in fitter.logger.series("train/loss")] == [1, 3, 5, 6, 8, 10]


def first_loss(net, samples, seed=0):
    """Loss of the first batch of training, its masks drawn by hand."""
    rows = next(iter(GlobalBatches(len(samples.train.targets), BATCH, samples.seed)))
    images = samples.prepare(samples.train.inputs[rows])
    with mask_keys(seed, 0, range(BATCH)):
        return F.cross_entropy(net.train()(images), samples.train.targets[rows]).item()


def test_the_training_loss_is_with_dropout_on():
    samples = data()
    _, logger = trained(made(seed=3), samples, log_every_n_steps=1, epochs=1)
    assert logger.series("train/loss")[0][1] == pytest.approx(first_loss(network(), samples, seed=3), rel=1e-6)
    assert first_loss(network(), samples, seed=3) != pytest.approx(first_loss(network(Dropout(0)), samples), rel=0.01)


def test_penalties_of_layers_count_in_training_alone():
    samples = data()
    classifier, logger = trained(made(network(Penalised(0.5))), samples, log_every_n_steps=1, epochs=1)
    assert logger.series("train/loss")[0][1] == pytest.approx(first_loss(network(), samples) + 9, rel=1e-6)
    assert abs(classifier.net[3].weight) < 2  # it is trained, too
    expected = direct(classifier.net, samples.prepare(samples.val.inputs), samples.val.targets)
    assert logger.last("val/loss") == pytest.approx(expected["loss"], rel=1e-5)


class Fined(Dropout):
    """Costs what it drops."""

    def penalty(self, fed, rows):
        return torch.tensor(10 * self.p)


def test_penalties_of_layers_that_install_has_put_in_count():
    def installed(kind):
        net = network(nn.Dropout(0.1))
        install(net, kind, Placement(["activations", "existing"], p=0.4, rate="linear"))  # p of 0.2 and 0.4
        return net

    samples = data()
    _, logger = trained(made(installed(Fined)), samples, log_every_n_steps=1, epochs=1)
    expected = first_loss(installed(Dropout), samples) + 10 * (0.2 + 0.4)
    assert logger.series("train/loss")[0][1] == pytest.approx(expected, rel=1e-6)


class Counting(Dropout):
    """Costs as much as there are samples."""

    def penalty(self, fed, rows):
        return torch.tensor(float(rows))


def test_a_penalty_is_given_the_number_of_training_samples_and_logged():
    samples = data()
    _, logger = trained(made(network(Counting(0.5))), samples, log_every_n_steps=1, epochs=1)
    assert {value for _, value in logger.series("train/penalty")} == {float(len(samples.train.targets))}
    assert all(loss > len(samples.train.targets) for _, loss in logger.series("train/loss"))


def test_two_trainings_of_one_seed_are_equal_to_the_last_bit():
    ends = []
    for other in (1, 2):
        torch.manual_seed(other)  # has no part in it
        classifier, logger = trained(made(seed=5))
        ends.append((weights(classifier), logger.calls))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_another_seed_is_other_masks():
    assert not torch.equal(weights(trained(made(seed=5))[0]), weights(trained(made(seed=6))[0]))


def test_training_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    trained(made())
    assert torch.equal(before, torch.get_rng_state())


def test_without_keys_torchs_generator_draws_the_masks():
    def end(state, seed=0):
        torch.manual_seed(state)
        return weights(trained(made(seed=seed, keyed=False))[0])

    assert torch.equal(end(1), end(1, seed=9))
    assert not torch.equal(end(1), end(2))


def test_keys_count_micro_batches_since_the_start(monkeypatch):
    asked, keys = [], module.mask_keys

    def kept(*arguments):
        asked.append(arguments)
        return keys(*arguments)

    monkeypatch.setattr(module, "mask_keys", kept)
    trained(made(seed=4), accumulate_grad_batches=2, epochs=3)
    assert asked == [(4, step, range(BATCH)) for step in range(3 * STEPS)]


def test_each_rank_draws_the_masks_of_its_own_rows():
    classifier, net = made(), Dropout(0.5)
    x, found = torch.ones(4 * BATCH, 16), []
    for rank in range(4):
        classifier._trainer = SimpleNamespace(
            global_rank=rank, current_epoch=1, num_training_batches=4, max_epochs=2, log_every_n_steps=50
        )
        with classifier.masks(3, BATCH):
            found.append(net(x[:BATCH]))
    classifier._trainer = None
    with mask_keys(0, 7, range(4 * BATCH)):
        assert torch.equal(torch.cat(found), net(x))


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    half = trainer(epochs=2)
    half.fit(made(), data())
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, whole = made(), trained(epochs=4)[0]
    trainer(epochs=4).fit(resumed, data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_holds_plain_containers_and_loads_into_the_network(tmp_path):
    fitter, classifier = trainer(epochs=1), made(schedule=lambda own: torch.optim.lr_scheduler.StepLR(own, 1))
    fitter.fit(classifier, data())
    fitter.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    net = network()
    net.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})
    assert torch.equal(weights(made(net)), weights(classifier))


class Rates(lightning.Callback):
    """Writes down the learning rate and the first drop probability of each batch."""

    def __init__(self):
        self.learning, self.dropping = [], []

    def on_before_backward(self, trainer, module, _):
        self.learning.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.dropping.append(next(each.p for each in module.net.modules() if isinstance(each, Dropout)))


def halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def test_the_learning_rate_is_stepped_once_an_epoch():
    seen = Rates()
    trained(made(lr=1.0, schedule=halving), callbacks=[seen])
    assert seen.learning == [1.0] * STEPS + [0.5] * STEPS


def test_the_learning_rate_is_stepped_with_the_optimizer_where_that_is_its_interval():
    """Three steps an epoch of five batches, the last of one batch."""
    seen = Rates()
    schedule = made(lr=1.0, schedule=lambda own: {"scheduler": halving(own), "interval": "step"})
    trained(schedule, callbacks=[seen], accumulate_grad_batches=2)
    assert seen.learning == [0.5**step for step in (0, 0, 1, 1, 2, 3, 3, 4, 4, 5)]


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"epochs": 2}, 10),
        ({"epochs": -1, "max_steps": 7}, 7),
        ({"epochs": 9, "max_steps": 7}, 7),
        ({"epochs": 2, "max_steps": 100}, 10),
        ({"epochs": 2, "accumulate_grad_batches": 2}, 10),
        ({"epochs": -1, "max_steps": 5, "accumulate_grad_batches": 2}, 9),  # three of five batches, then two
        ({"epochs": -1, "max_steps": 4, "limit_train_batches": 3}, 4),
    ],
)
def test_drop_probabilities_go_through_their_schedule_in_the_batches_that_there_are(options, batches):
    seen, classifier = Rates(), made(network(Dropout(0.4)))
    classifier.rates = ScheduledRates(classifier.net, partial(linear, start=1, end=0))
    trained(classifier, callbacks=[seen], **options)
    assert seen.dropping == pytest.approx([0.4 * (1 - batch / batches) for batch in range(batches)])


def test_evaluation_needs_no_optimizer():
    samples = data()
    found = metrics_of(Classifier(network()), samples)
    expected = direct(network(), samples.prepare(samples.test.inputs), samples.test.targets)
    assert found == pytest.approx({f"test/{key}": value for key, value in expected.items()}, rel=1e-5)


class Distilled(Classifier):
    """Imitates a frozen teacher, with a temperature that is learned."""

    def __init__(self, net):
        super().__init__(net)
        self.teacher = network(Dropout(0.9)).requires_grad_(False)
        self.heat = nn.Parameter(torch.tensor(2.0))

    def loss(self, batch):
        x, _ = batch
        wanted = self.teacher(x).detach()
        distance = (self.net(x) / self.heat - wanted).square().mean()
        return distance, {"heat": self.heat}


def test_other_children_are_trained_if_they_can_be_and_the_network_keeps_its_names(tmp_path):
    module = Distilled(network())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    logger = trained(trainable(module), log_every_n_steps=1)[1]
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"heat", *(key for key in before if key.startswith("net."))}
    assert logger.series("train/heat")[0][1] == 2.0
    assert logger.series("train/heat")[-1][1] == pytest.approx(2.0, abs=1)
    assert [tap.name for tap in taps_of(model_of(module))] == [tap.name for tap in taps_of(network())]
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), "dropout_rates": {}}, path)
    assert read_checkpoint(path)[0].keys() == network().state_dict().keys()


class Alternating(Classifier):
    """Two optimizers, one for each layer, that take turns: a training step of its own."""

    automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.net[1], self.net[4])]

    def training_step(self, batch, batch_idx):
        with self.masks(batch_idx, len(batch[0])):
            loss = self.loss(batch)
            optimizer = self.optimizers()[batch_idx % 2]
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.note(loss=loss)


def test_a_training_step_of_ones_own_has_masks_logs_and_measures_like_any_other():
    samples, module = data(), Alternating(network())
    module, logger = trained(module, samples, log_every_n_steps=2, epochs=1)
    assert logger.series("train/loss")[0][1] == pytest.approx(math.log(3), abs=1)
    assert [step for step, _ in logger.series("train/loss")] == [2, 4, 5]  # its optimizers have stepped by then
    expected = direct(module.net, samples.prepare(samples.val.inputs), samples.val.targets)
    assert logger.last("val/loss") == pytest.approx(expected["loss"], rel=1e-5)


def test_where_steps_come_less_often_than_batches_the_schedule_of_p_ends_at_its_end():
    """Both optimizers' steps count, but none is taken in every second batch."""

    class Seldom(Alternating):
        def training_step(self, batch, batch_idx):
            if batch_idx % 2:
                return super().training_step(batch, batch_idx)
            with self.masks(batch_idx, len(batch[0])):
                self.note(loss=self.loss(batch))

    module, seen = Seldom(network(Dropout(0.4))), []
    module.rates = ScheduledRates(module.net, lambda p, t: seen.append(t) or p)
    seen.clear()
    trained(module, epochs=-1, max_steps=4)
    assert seen == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


class Sharp(Classifier):
    """Predicts with a temperature, and measures two numbers a row."""

    columns = (*Classifier.columns, Column("spread", "spread"))

    def predict(self, x):
        return (super().predict(x) * 4).log_softmax(1)

    def scores(self, prediction, batch):
        likeliest = prediction.exp().topk(2, dim=1).values
        return {**super().scores(prediction, batch), "likeliest": likeliest}

    def summarize(self, means):
        first, second = means["likeliest"]
        return {**means, "spread": first - second}


def test_numbers_of_the_columns_are_formed_from_means_over_all_rows():
    samples, net = data(), network()
    found = metrics_of(Sharp(net), samples)
    assert found.keys() == {"test/loss", "test/acc", "test/spread"}
    with torch.no_grad():
        p = (net.eval()(samples.prepare(samples.test.inputs)).log_softmax(1) * 4).softmax(1).double()
    first, second = p.topk(2, dim=1).values.mean(0)
    assert found["test/spread"] == pytest.approx((first - second).item(), rel=1e-5)


def test_monte_carlo_averages_what_a_module_predicts():
    """That of a class of its own pass by pass: the mean of the probabilities, not of the logits."""
    x = data().prepare(data().test.inputs)
    for kind in (Classifier, Sharp):
        module = kind(network()).eval()
        with mask_keys(0, 0, range(len(x))), torch.no_grad():
            found = module.monte_carlo(x, 30)
        with mask_keys(0, 0, range(len(x))), torch.no_grad(), dropout_only(module.net, on=True):
            passes = [module.predict(x) for _ in range(30)]
        assert torch.allclose(found.exp(), torch.stack(passes).exp().mean(0), atol=1e-6)
        assert not torch.allclose(found, module.predict(x), atol=1e-3)

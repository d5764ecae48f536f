"""Laws of the classifier: which numbers it reports, over which samples, in which mode, and which masks it draws."""

import copy

import classification_ranks
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from classifying import BATCH, data, direct, made, metrics_of, network, trained, trainer, weights
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from dropout_lab.data import GlobalBatches, Synthetic
from dropout_lab.dropout import Dropout, mask_keys, monte_carlo
from dropout_lab.jobs.build import instantiate
from dropout_lab.jobs.conf import CONF
from dropout_lab.jobs.processes import launch
from dropout_lab.modules.classification import Classifier

# Lightning advises on loader workers and log intervals; torch 2.15 on a class that Lightning uses.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*LeafSpec"
)


class Uneven(Synthetic):
    """Batches of 15, 3, 1 and so on in evaluation: a mean of their means is not the mean over the samples."""

    def _eval_loader(self, samples):
        count = len(samples.targets)
        batches = torch.arange(count).split([15, 3, 1, count - 19])
        return DataLoader(TensorDataset(*samples), sampler=batches, batch_size=None)


@pytest.fixture(scope="module")
def uneven():
    """A run on batches of uneven sizes with much dropout, tested: classifier, data, logger."""
    samples, classifier, fitter = data(kind=Uneven), made(network(Dropout(0.8))), trainer()
    fitter.fit(classifier, samples)
    fitter.test(classifier, samples, verbose=False)
    return classifier, samples, fitter.logger


@pytest.mark.parametrize("part", ["val", "train_eval", "test"])
def test_evaluation_is_over_all_samples_with_dropout_off(uneven, part):
    classifier, samples, logger = uneven
    own = getattr(samples, part)
    for key, value in direct(classifier.net, samples.prepare(own.inputs), own.targets).items():
        assert logger.last(f"{part}/{key}") == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("key", ["loss", "acc"])
def test_the_gap_is_val_minus_train_eval(uneven, key):
    _, _, logger = uneven
    gaps, val, train = (logger.series(f"{part}/{key}") for part in ("gap", "val", "train_eval"))
    assert len(gaps) == 2
    assert [gap for _, gap in gaps] == [a - b for (_, a), (_, b) in zip(val, train, strict=True)]


def test_another_loss_is_minimised_but_not_measured():
    samples = data()
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.3)
    plain, other = made(), made(loss=smoothed)
    _, logger = trained(other, samples, log_every_n_steps=1, epochs=1)
    trained(plain, samples, epochs=1)
    rows = next(iter(GlobalBatches(len(samples.train.targets), BATCH, samples.seed)))
    with mask_keys(0, 0, range(BATCH)):
        logits = network().train()(samples.prepare(samples.train.inputs[rows]))
    assert logger.series("train/loss")[0][1] == pytest.approx(smoothed(logits, samples.train.targets[rows]).item())
    assert not torch.equal(weights(plain), weights(other))
    for part, own in (("val", samples.val), ("train_eval", samples.train_eval)):
        expected = direct(other.net, samples.prepare(own.inputs), own.targets)
        assert logger.last(f"{part}/loss") == pytest.approx(expected["loss"], rel=1e-5)


def test_the_loss_of_the_configuration_is_cross_entropy_to_the_last_bit():
    default = OmegaConf.load(CONF / "loss" / "cross_entropy.yaml")
    configured, plain = trained(made(loss=instantiate(default)))[0], trained(made())[0]
    assert torch.equal(weights(configured), weights(plain))


@pytest.mark.parametrize("part", ["train", "val"])
def test_low_precision_of_the_network_does_not_reach_the_sums(part):
    """A sum in bfloat16 has two or three digits. (Lightning hands the images over in bfloat16.)"""
    samples, classifier = data(), made(network(Dropout(0.0)), lr=1e-12)
    _, logger = trained(classifier, samples, epochs=1, precision="bf16-true")
    own, rows = getattr(samples, part), [torch.arange(24)]
    if part == "train":
        rows = list(GlobalBatches(len(own.targets), BATCH, samples.seed))
    net, losses = classifier.net.bfloat16(), []
    for batch in rows:
        logits = net(samples.prepare(own.inputs[batch].bfloat16()))
        losses.append(F.cross_entropy(logits.float(), own.targets[batch]).item())
    assert logger.last(f"{part}/loss") == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_monte_carlo_evaluation_averages_probabilities_over_masks():
    samples, net = data(), network()
    found = [metrics_of(Classifier(net, monte_carlo_samples=20, seed=seed), samples) for seed in (1, 1, 2)]
    with mask_keys(1, 0, range(24)):
        mean = monte_carlo(copy.deepcopy(net).eval(), samples.prepare(samples.test.inputs), 20).mean
    loss = F.nll_loss(mean.log(), samples.test.targets).item()
    assert found[0]["test/loss"] == found[1]["test/loss"] == pytest.approx(loss, rel=1e-5)
    assert found[0]["test/acc"] == (mean.argmax(1) == samples.test.targets).float().mean()
    assert found[0]["test/loss"] != found[2]["test/loss"]


def metrics(folder, world):
    """What the first process wrote."""
    launch(world, classification_ranks.run, folder)
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.slow
def test_two_processes_log_what_one_logs(tmp_path):
    """Losses and accuracies in training, validation and test; float64 and keyed masks, so only rounding is left."""
    one, two = (metrics(tmp_path / str(world), world) for world in (1, 2))
    assert {"train/loss", "val/loss", "train_eval/acc", "gap/loss", "test/acc"} <= set(one)
    pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-12)

"""Classifiers of a few samples, their training, and what they should measure."""

import copy

import lightning
import torch
import torch.nn.functional as F
from memory_logger import Memory
from small_networks import dense
from torch import nn

from dropout_lab.data import Synthetic
from dropout_lab.dropout import Dropout
from dropout_lab.modules.classification import Classifier

BATCH, STEPS = 8, 5  # samples in a batch, batches in an epoch


def data(seed=0, kind=Synthetic):
    """42 samples to train on, 24 to validate and to test."""
    fractions = {"val_fraction": 24 / 90, "test_fraction": 24 / 90}
    made = kind(size=90, shape=[1, 3, 3], num_classes=3, noise=2.0, batch_size=BATCH, seed=seed, **fractions)
    made.setup()
    return made


def network(layer=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), *dense(layer or Dropout(0.5), inputs=9, hidden=16, outputs=3))


def made(net=None, lr=0.1, schedule=None, **options):
    net = net or network()
    return trainable(Classifier(net, **options), lr=lr, schedule=schedule)


def trainable(module, optimizer=None, lr=0.1, schedule=None):
    """A module with what is set before training."""
    module.optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9)
    module.lr_scheduler = schedule
    return module


def trainer(epochs=2, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    machine = {"accelerator": "cpu", "devices": 1}
    return lightning.Trainer(**{**quiet, **machine, "max_epochs": epochs, "logger": Memory(), **options})


def trained(classifier=None, samples=None, **options):
    """A classifier after training, and what its logger saw."""
    classifier = classifier or made()
    fitter = trainer(**options)
    fitter.fit(classifier, samples or data())
    return classifier, fitter.logger


def metrics_of(classifier, samples):
    """Metrics of the test part."""
    tester = trainer()
    tester.test(classifier, samples, verbose=False)
    return {key: value.item() for key, value in tester.callback_metrics.items()}


def direct(net, images, classes):
    """Loss and accuracy over all samples at once, in eval mode."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        logits = net(images)
    return {
        "loss": F.cross_entropy(logits, classes).item(),
        "acc": (logits.argmax(1) == classes).double().mean().item(),
    }


def weights(classifier):
    return torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])

"""Every recipe of conf/experiment/baseline says what it reproduces, can be built as it stands, and trains.

None can be run in full here: the data sets are tiny files in the format of the real ones, and so are the networks.
"""

import re

import pandas as pd
import pytest
import tiny_sets
import torch
import torchvision
from commands import exit_code

from dropout_lab.jobs.conf import CONF, REPOSITORY
from dropout_lab.jobs.plan import plan
from dropout_lab.report.results import experiments
from dropout_lab.runs.folder import read_status
from dropout_lab.train.preflight import refusals

RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
FIELDS = ("Reproduces", "Source", "Run", "Hardware", "Paper")
RESULTS = (REPOSITORY / "RESULTS.md").read_text()

CONVNET = ["model.widths=[4,6,8]", "model.hidden=[16,16]"]
FOLDER = ["trainer=cpu", "data.batch_size=8", "data.num_workers=0", "data.num_classes=3", "data.val_fraction=0.2"]
# What makes a recipe fit its tiny files, and its network small.
FITTING = {
    "mnist_mlp": ["data.batch_size=20"],
    "svhn_conv": ["data.batch_size=20", "data.val_fraction=0.2"],
    "cifar10_conv": ["data.batch_size=20", "data.val_fraction=0.2"],
    "cifar10_resnet18": ["data.batch_size=20"],
    "cifar100_wrn28_10": ["data.batch_size=20", "data.val_fraction=0.3"],
    "imagenet_resnet50": [*FOLDER, "data.image_size=32"],
    "imagenet_vit_b_16": [*FOLDER, "data.image_size=32"],
}
SMALL = {
    "mnist_mlp": ["model.widths=[16,16,16]", "trainer.check_val_every_n_epoch=1"],
    "svhn_conv": CONVNET,
    "cifar10_conv": CONVNET,
    "cifar10_resnet18": ["data.image_size=8"],
    "cifar100_wrn28_10": ["model.depth=10", "model.width=1"],
    "imagenet_resnet50": ["model.name=resnet18"],
    "imagenet_vit_b_16": [],  # see ``small_vit``
}
QUICK = ["logger=csv", "trainer.log_every_n_steps=1", "callbacks.activation_stats.probe_masks=1"]
SETS = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def head(name):
    """The fields of the comment that a recipe opens with."""
    lines = (CONF / "recipe" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    text = "\n".join(line[2:] for line in lines[1 : next(i for i, line in enumerate(lines) if line[:1] != "#")])
    found = re.findall(r"^(\w+): (.*(?:\n  .*)*)", text, flags=re.MULTILINE)
    return {key: " ".join(value.split()) for key, value in found}


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The command line of a recipe on tiny files."""

    def given(name):
        kind = name.partition("_")[0]
        root = tmp_path / "data"
        if kind == "imagenet":
            counts = {"ant": 12, "bee": 12, "cat": 12}
            tiny_sets.write_folder(root, {"train": counts, "val": counts}, (40, 36))
        else:
            tiny_sets.write(SETS[kind], root)
            tiny_sets.accept(SETS[kind], root, monkeypatch)
        return [f"recipe={name}", f"data.root={root}", *FITTING[name]]

    return given


@pytest.fixture
def small_vit(monkeypatch):
    """A ViT of two layers of 16 units in the place of torchvision's."""
    module = torchvision.models.vision_transformer
    original, size = module._vision_transformer, {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    monkeypatch.setattr(module, "_vision_transformer", lambda **options: original(**{**options, **size}))


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_comment_says_what_from_where_how_and_on_what(name):
    fields = head(name)
    assert tuple(fields) == FIELDS
    assert fields["Run"].removesuffix(" data.root=FOLDER") == f"scripts/train recipe={name}"
    assert "%" in fields["Paper"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_results_tell_the_papers_number_and_whether_it_was_run_here(name):
    row = next(line for line in RESULTS.splitlines() if line.startswith(f"| `{name}` |"))
    number = row.split("|")[-3].split("%")[0].strip()
    assert f"{number} %" in head(name)["Paper"]
    assert row.split("|")[-2].strip() == "not run"


def test_recipes_are_no_experiments_that_are_reproduced_on_digits():
    assert len(RECIPES) == 7
    assert not [name for name in experiments() if name.rpartition("/")[2] in RECIPES]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_planned_and_built_at_its_full_size(name, words):
    (job,) = plan(words(name)).jobs
    assert refusals([job]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_steps_in_the_comment_follow_from_the_settings(name):
    sizes = {"mnist": 60_000, "svhn": 73_257, "cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}
    size = sizes[name.partition("_")[0]]
    job = plan([f"recipe={name}", "data.root=nowhere"]).base
    rest = size - round(size * job.data.val_fraction)
    steps = rest // job.data.batch_size * job.trainer.max_epochs
    assert f"{steps:,} steps of {job.data.batch_size} images" in head(name)["Hardware"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_tests_on_files_of_its_format(name, words, small_vit, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    arguments = [*words(name), *SMALL[name], *QUICK, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}"]
    assert exit_code(*arguments, "+trainer.limit_train_batches=1") == 0
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert {"train/loss", "val/loss", "train_eval/loss", "test/acc"} <= set(table)
    assert table["train/loss"].notna().sum() == 2
    assert table["test/loss"].notna().sum() == 1


@pytest.mark.slow
def test_an_interrupted_recipe_ends_as_the_whole_one(words, tmp_path, monkeypatch):
    """That with everything: warm-up, smoothing, mixup, resized crops, an average, and max-norm on top."""
    from dropout_lab.modules.classification import Classifier

    more = ["callbacks=[default,weight_averaging,max_norm]", "callbacks.max_norm.radius=1.0", "dropout=inverted"]
    arguments = [*words("imagenet_resnet50"), *SMALL["imagenet_resnet50"], *QUICK, *more, "trainer.max_epochs=2"]
    original, calls = Classifier.training_step, []

    def stopping(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:  # the second of the second epoch
            raise RuntimeError("stopped")
        return original(self, *args, **kwargs)

    assert exit_code(*arguments, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stopping)
        assert exit_code(*arguments, f"hydra.run.dir={tmp_path / 'cut'}") == 1
    assert exit_code(*arguments, f"hydra.run.dir={tmp_path / 'cut'}") == 0
    assert read_status(tmp_path / "cut")["status"] == "ok"
    assert (tmp_path / "cut" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    ours, theirs = (torch.load(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("cut", "whole"))
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert all(torch.equal(ours[part][key], value) for key, value in theirs[part].items())

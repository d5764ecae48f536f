"""Forks that redo research papers with new files alone, in tests/forks: each trains and is read as any other.

They are laid over one copy of the repository. What a fork adds is shown by its files; what must not change stands here:
rows and columns of the table, names of layers, folding, evaluation, and one line about what is wrong.
"""

import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from commands import run

from dropout_lab.jobs.conf import REPOSITORY

pytestmark = pytest.mark.slow
FORKS = REPOSITORY / "tests" / "forks"
SMALL = ("trainer.max_epochs=1", "logger=csv")


class Copy:
    """A copy of the repository with the forks' files, and a folder of runs that one test makes."""

    def __init__(self, root, folder):
        self.root, self.folder = root, folder

    def __call__(self, *words, module="dropout_lab.train"):
        """What a command prints."""
        done = run(*words, module=module, copy=self.root, folder=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sweep(self, *words, small=SMALL):
        """The table of a small sweep, strategies as its index."""
        self("-m", f"hydra.sweep.dir={self.folder / 'runs'}", *small, *words)
        self(self.folder / "runs", module="dropout_lab.report")
        return pd.read_csv(self.folder / "runs" / "table.csv").set_index("strategy")

    def refusal(self, *words, module="dropout_lab.train"):
        """The one line about what is wrong."""
        done = run(*words, module=module, copy=self.root, folder=self.folder)
        assert done.returncode == 2, done.stderr
        return next(line for line in done.stderr.splitlines() if line.startswith("error: "))

    def numbers(self, number, *words):
        """What `evaluate` prints of a run."""
        said = self(f"run={self.folder / 'runs' / str(number)}", *words, module="dropout_lab.evaluate")
        return {key: float(value) for key, value in re.findall(r"^  (\S+) +(\S+)$", said, flags=re.MULTILINE)}

    def folding_error(self, number):
        """The largest difference that folding a run makes."""
        run_, out = f"run={self.folder / 'runs' / str(number)}", f"out={self.folder / 'weights.pt'}"
        return float(re.search(r"max .*: (\S+) \(", self(run_, out, module="dropout_lab.fold"))[1])

    def tested(self, number):
        """What training measured of a run on its test part."""
        return self.read(number, "metrics.csv").filter(like="test/").iloc[-1]

    def read(self, number, name):
        return pd.read_csv(self.folder / "runs" / str(number) / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    copy = tmp_path_factory.mktemp("forks")
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    for fork in FORKS.iterdir():
        for file in (path for path in fork.rglob("*") if path.is_file()):
            assert not (copy / file.relative_to(fork)).exists(), f"{file} is no new file"
            shutil.copy(file, copy / file.relative_to(fork))
    return copy


@pytest.fixture
def copy(root, tmp_path):
    return Copy(root, tmp_path)


def test_stochastic_depth_rises_by_depth_and_folds_in_its_own_network_and_at_the_ends_of_torchvision_s_branches(copy):
    words = ["dropout=drop_path", "dropout.scaling=inverted,classic", "placement.rate=linear", "data.train_size=128"]
    table = copy.sweep(*words, "model=tiny_resnet", "model.blocks=2", "model.width=8")
    assert table["gain_eval_mean"].tolist() == [1, 0.5]
    statistics = copy.read(1, "activations.csv")
    rates = statistics[statistics.stat == "p"].groupby("layer")["value"].last()
    assert rates.to_dict() == {"08_blocks_0_branch_5": 0.25, "15_blocks_1_branch_5": 0.5}
    assert copy.folding_error(1) < 1e-5
    assert copy.numbers(1, "eval.mode=monte_carlo", "eval.samples=2")["test/loss"] != copy.tested(1)["test/loss"]
    place = ["model=torchvision", "data.image_size=16", "placement=pattern", "placement.pattern=layer?.?.bn2"]
    small = [*SMALL, "data.train_size=64", "callbacks.activation_stats.probe_masks=0"]
    copy(*place, *small, "dropout=drop_path", f"hydra.run.dir={copy.folder / 'runs' / 'resnet18'}")
    layers = copy.read("resnet18", "activations.csv").layer
    assert layers[layers.str.match(r"\d+_layer\d_\d_bn2$")].nunique() == 8


def test_a_given_precision_on_given_splits_is_one_row_and_monte_carlo_is_the_mixture_of_its_passes(copy):
    points = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(copy.folder / "data.txt", points @ [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])
    for split in (0, 1):
        np.savetxt(copy.folder / f"test_{split}.txt", np.arange(60)[split::6], fmt="%d")
    words = ["data=tabular", "data.file=data.txt", "data.test_index=test_*.txt", "model=mlp", "module=fixed_precision"]
    table = copy.sweep(*words, "data.split=0,1", "module.tau=4", "dropout.p=0.1")
    assert table[["seeds", "test_rmse_n", "test_nll_n"]].values.tolist() == [[2, 2, 2]]
    single, mixed = copy.tested(0), copy.numbers(0, "eval.mode=monte_carlo", "eval.samples=8")
    spread = points[np.setdiff1d(np.arange(60), np.arange(60)[::6])].sum(1).std()
    floor = 0.5 * np.log(2 * np.pi * spread**2 / 4)  # the density's at its mean
    assert single["test/loss"] > floor - 0.2
    assert mixed["test/rmse"] != single["test/rmse"]
    assert copy.refusal(*words, "module.tau=0") == "error: module.tau=0: must be a number > 0"


def test_calibration_and_a_callback_s_number_are_in_table_page_and_dashboard_and_ece_in_evaluation(copy):
    words = ["module=calibration", "callbacks=[default,ood]", "model=mlp", "dropout=inverted,none"]
    table = copy.sweep(*words)
    assert table["test_ood_auroc_mean"].between(0, 1).all()
    said = copy.numbers(1)
    assert {f"test/{key}" for key in ("acc", "loss", "brier", "ece")} == {*said}
    assert said["test/ece"] == table["test_ece_mean"]["none"]
    page = (copy.folder / "runs" / "report.html").read_text()
    assert all(title in page for title in ("validation ECE", "Brier score", "OOD AUROC"))
    board = copy.folder / "board.json"
    copy(f"runs={copy.folder / 'runs'}", f"out={board}", module="dropout_lab.dashboard")
    assert all(key in board.read_text() for key in ("val/ece", "test/brier", "auroc/test"))


def test_ece_over_batches_is_that_of_guo_et_al_over_all_rows():
    program = FORKS / "calibration" / "src" / "dropout_lab" / "modules" / "calibration.py"
    module = runpy.run_path(str(program))["Calibration"](torch.nn.Identity())
    prediction = torch.randn(300, 10).mul(3).log_softmax(1)
    confidence, likeliest = prediction.exp().max(1)
    classes = torch.where(confidence < 0.7, likeliest, torch.randint(10, (300,)))  # too unsure, and too sure
    batches = zip(prediction.split(64), classes.split(64), strict=True)
    excess = sum(module.scores(said, (None, right))["excess"].double().sum(0) for said, right in batches) / 300
    misses, bins = confidence.double() - (likeliest == classes).double(), (15 * confidence).ceil()
    by_hand = sum(misses[bins == each].sum().abs() for each in bins.unique()) / 300
    assert module.summarize({"excess": excess.tolist()})["ece"] == pytest.approx(float(by_hand))


def test_arms_of_one_s_own_are_the_rows_side_by_side_as_one_after_another(copy):
    words = ["model=mlp", "data.train_size=200"]
    table = copy.sweep("sweep=noisy_labels", "seed=1", *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert table["seeds"].to_dict() == {"clean": 1, "noisy": 1, "noisy_decay": 1}
    assert table["test_nll_mean"]["noisy"] > table["test_nll_mean"]["clean"]
    settings = [*words, "data.label_noise=0.4", "optimizer.weight_decay=0.001", "seed=1"]
    copy(*settings, *SMALL, f"hydra.run.dir={copy.folder / 'runs' / 'alone'}")
    pd.testing.assert_frame_equal(copy.read("alone", "metrics.csv"), copy.read(2, "metrics.csv"))


def test_folds_of_data_of_one_s_own_are_one_row_whose_parts_differ(copy):
    table = copy.sweep("data=circles", "data.size=100", "model=mlp", "data.folds=3", "data.fold=0,1,2")
    assert table["seeds"].to_dict() == {"inverted": 3}
    assert table["test_acc_ci95"]["inverted"] > 0


def test_linters_and_types_have_nothing_against_them(root):
    files = [str(path.relative_to(fork)) for fork in FORKS.iterdir() for path in fork.rglob("*.py")]
    types = ["mypy", f"--cache-dir={REPOSITORY / '.mypy_cache'}"]
    for tool in (["ruff", "check", "--output-format=concise"], ["ruff", "format", "--check"], types):
        done = subprocess.run([sys.executable, "-m", *tool, *files], cwd=root, capture_output=True, text=True)
        about = [line for line in done.stdout.splitlines() if line.startswith((*files, "Would reformat"))]
        assert done.returncode < 2, done.stderr
        assert not about  # what they import is held to it elsewhere

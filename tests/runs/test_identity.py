"""A run is called the same wherever it is named: by the options and words that were chosen."""

import json
import re

import pandas as pd
import pytest
import yaml
from commands import exit_code
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb_files import read_all

from dropout_lab import report
from dropout_lab.jobs.conf import CONF, VERSION_BASE
from dropout_lab.runs import identity
from dropout_lab.runs.folder import config_of

MATCHED = ["sweep=compare", "dropout=classic", "optimizer.match=inverted", "arm=classic_matched"]  # as the sweeper does


def composed(*words):
    """A job's configuration with its node ``hydra``, from its words."""
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        return compose("train", list(words), return_hydra_config=True)


@pytest.fixture
def described(tmp_path):
    """The section ``run`` of a job, from its words."""

    def make(*words, name=None):
        cfg = composed(*words)
        OmegaConf.set_readonly(cfg.hydra, False)
        cfg.hydra.runtime.output_dir = str(tmp_path)
        identity.describe(cfg, cfg.hydra, name)
        return OmegaConf.to_container(cfg.run)

    return make


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "inverted"),
        (["dropout=classic", "dropout.p=0.3", "seed=4"], "classic dropout.p=0.3"),
        (["optimizer=adam", "dropout=classic", "model=mlp"], "classic optimizer=adam model=mlp"),
        (["+trainer.min_epochs=2"], "inverted trainer.min_epochs=2"),
        (["++trainer.max_epochs=2"], "inverted trainer.max_epochs=2"),
        (["~callbacks.activation_stats"], "inverted ~callbacks.activation_stats"),
        (["logger=csv", "+logger.csv.prefix=a", "tags=[a]", "paths.runs=a", "resume=never"], "inverted"),
        (MATCHED, "classic_matched"),
        ([*MATCHED, "model=mlp", "seed=1"], "classic_matched model=mlp"),
        (["arm=mine", "dropout=gaussian"], "mine dropout=gaussian"),
        (["experiment=depth"], "inverted experiment=depth"),
    ],
)
def test_a_label_is_the_arm_or_the_dropout_and_the_other_words_as_they_are_typed(words, name):
    cfg = composed(*words)
    assert identity.label(cfg, cfg.hydra) == name


def test_what_all_jobs_of_a_sweep_have_is_not_in_their_labels():
    cfg = composed("dropout=classic", "optimizer=adam", "+trainer.min_epochs=2", "model=mlp")
    assert identity.label(cfg, cfg.hydra, {"model=mlp", "+trainer.min_epochs=2"}) == "classic optimizer=adam"


@pytest.mark.parametrize(
    ("words", "name"),
    [(["dropout=none", "dropout.p=0.3", "placement.p=0.2"], "none"), (["dropout.p=0"], "inverted dropout.p=0")],
)
def test_the_p_that_none_ignores_is_not_in_its_label(words, name):
    cfg = composed(*words)
    assert identity.label(cfg, cfg.hydra) == name


def test_name_and_group_are_the_label_with_the_seed_or_a_fingerprint(described):
    run = described("dropout=classic", "optimizer=adam", "seed=7")
    assert run["label"] == "classic optimizer=adam"
    assert run["name"] == "classic optimizer=adam seed=7"
    assert re.fullmatch("classic optimizer=adam [0-9a-f]{8}", run["group"])
    assert re.fullmatch("classic-optimizer-adam-seed-7-[0-9a-f]{8}", run["id"])


def test_a_job_is_called_as_its_sweep_calls_it(described):
    run = described("dropout=classic", "model=mlp", "seed=7", name="classic")
    assert (run["label"], run["name"], run["group"][:8]) == ("classic", "classic seed=7", "classic ")


def test_the_option_that_was_chosen_of_each_group_is_kept(described):
    chosen = described("optimizer=adam", "recipe=mnist_mlp", "dropout=gaussian")["choices"]
    assert type(chosen) is dict
    assert {"optimizer": "adam", "dropout": "gaussian", "recipe": "mnist_mlp"}.items() <= chosen.items()
    assert chosen["data"] == "mnist"  # the experiment's choice
    assert not {"debug", "sweep"} & chosen.keys()  # nothing was chosen of these
    assert not [group for group in chosen if group.startswith("hydra")]


def test_names_are_no_part_of_the_fingerprint(described):
    before = identity.fingerprints(composed("dropout=classic"))
    assert described("dropout=classic", name="something else")["config_hash"] == before.run


def test_a_long_label_is_cut_for_all_alike_so_that_wandb_takes_it(described):
    run = described("seed=1234567", "model=mlp", *(f"+model.some_long_name_{n}={n}" for n in range(9)))
    assert run["label"].startswith("inverted model=mlp model.some_long_name_0=0 ")
    assert run["label"].endswith("…")
    assert run["name"] == f"{run['label']} seed=1234567"
    assert run["group"].startswith(f"{run['label']} ")
    assert max(map(len, (run["name"], run["group"], run["id"]))) <= 128


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "now", "label"),
    [
        (["trainer.max_epochs=2", "model=mlp"], ["trainer.max_epochs=20"], "inverted trainer.max_epochs=20 model=mlp"),
        (["model=mlp"], ["trainer.max_epochs=30"], "inverted model=mlp trainer.max_epochs=30"),
        (["+trainer.max_steps=2"], ["++trainer.max_steps=20"], "inverted trainer.max_steps=20"),
    ],
)
def test_a_run_that_goes_on_for_longer_is_called_as_one_of_that_length(before, now, label, described, tmp_path):
    trainer = OmegaConf.to_container(composed(*before).trainer)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"run": described(*before), "trainer": trainer}))
    run, fresh = described(*before, *now, f"resume={tmp_path}"), described(*before, *now)
    assert (run["label"], run["name"]) == (label, f"{label} seed=0")
    assert run["group"] == f"{label} {fresh['group'].split()[-1]}"
    assert run["config_hash"] == fresh["config_hash"]


def test_a_run_that_is_resumed_by_its_folder_keeps_its_names(described, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"run": described("dropout=classic", name="first of two")}))
    run = described("dropout=classic", "seed=0", f"resume={tmp_path}")
    assert (run["label"], run["name"]) == ("first of two", "first of two seed=0")
    before = {"root": "there", "name": "classic matched seed=0", "group": "classic matched 01234567"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"run": before}))  # of before labels were saved
    assert described("dropout=classic", f"resume={tmp_path}").items() >= before.items()


@pytest.mark.slow
def test_terminal_table_page_and_wandb_call_a_run_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    swept = ["optimizer=sgd,adam", "dropout=inverted,none"]
    shared = ["model=mlp", "trainer.max_epochs=1", "data.train_size=128", "callbacks.activation_stats.probe_masks=1"]
    assert exit_code("-m", *swept, *shared, f"hydra.sweep.dir={tmp_path}") == 0
    said = capsys.readouterr().err
    runs = [config_of(tmp_path / str(n))["run"] for n in range(4)]
    labels = [run["label"] for run in runs]
    told = [f"{dropout} optimizer={optimizer}" for optimizer in ("sgd", "adam") for dropout in ("inverted", "none")]
    for label, run, start in zip(labels, runs, told, strict=True):
        assert label.startswith(start)
        assert run["name"] == f"{label} seed=0"
        assert re.search(rf"^\d/4 {re.escape(label)} seed=0 \(", said, re.MULTILINE)
    assert {run.run["name"] for run in read_all(tmp_path)} == {run["name"] for run in runs}
    built = report.build(tmp_path)
    rows = [line.split("  ")[0] for line in built.text.split("\n\n")[0].splitlines()[2:]]
    assert rows == labels
    assert pd.read_csv(tmp_path / "table.csv")["strategy"].tolist() == labels
    page = built.page.read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])
    assert [strategy["name"] for strategy in data["strategies"]] == labels

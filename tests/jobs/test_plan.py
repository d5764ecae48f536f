"""From a command line to checked configurations: what is composed, what is refused, and in which words."""

import copy
import shutil
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dropout_lab.cli import UserError
from dropout_lab.jobs.conf import CONF, VERSION_BASE, one_store
from dropout_lab.jobs.job import resolved
from dropout_lab.jobs.plan import plan
from dropout_lab.runs.identity import fingerprints, label


def job(*overrides):
    return plan(overrides).jobs[0].config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dropout=invertd"], "dropout=invertd: no such option; did you mean 'inverted'? allowed: classic,"),
        (["recipe=svhn"], "recipe=svhn: no such option; did you mean 'svhn_conv'? allowed: "),
        (["droput=inverted"], "droput=inverted: there is no key 'droput'; did you mean 'dropout'?"),
        (["trainer.max_epoch=3"], "there is no key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
        (["dropout.p=1.5"], "dropout.p=1.5: must be the probability to DROP a unit, a number with 0 <= p < 1"),
        (["dropout.p=1"], "dropout.p=1: must be the probability to DROP"),
        (["dropout.p=-0.1"], "dropout.p=-0.1: must be the probability to DROP"),
        (["dropout.p=nan"], "dropout.p=nan: must be the probability to DROP"),
        (["dropout.p=half"], "dropout.p=half: must be the probability to DROP"),
        (["dropout.p=true"], "dropout.p=True: must be the probability to DROP"),
        (["dropout.p=null"], "dropout.p=null: must be the probability to DROP"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs=-1: trainer.max_steps=N ends training then: set it, too"),
        (["trainer.max_epochs=2.5"], "trainer.max_epochs=2.5: must be an integer >= 1"),
        (["data.batch_size=0"], "data.batch_size=0: must be an integer >= 1"),
        (["seed=-1"], "seed=-1: must be an integer with 0 <= seed < 2^32"),
        (["seed=0,1"], "seed=0,1: several values make a sweep; add -m"),
        (["optimizer.lr=0"], "optimizer.lr=0: must be a number > 0"),
        (["loss.label_smoothing=1"], "loss.label_smoothing=1: must be the share of the target for all classes"),
        (["optimizer.match=inverse"], "optimizer.match=inverse: must be inverted or null"),
        (["keyed=maybe"], "keyed=maybe: must be true or false"),
        (["threads=0"], "threads=0: must be an integer >= 1, or null"),
        (["dropout"], "dropout: not an override; write key=value"),
        (["optimizer.match=inverted", "trainer.gradient_clip_val=1.0"], "clipping by the global norm"),
        (
            ["recipe=mnist_mlp", "callbacks=default"],
            "callbacks.max_norm has settings, but there is no such",
        ),
        (["placement=pattern"], "placement.pattern needs a value: placement.pattern=..."),
        (["-m", "dropout=inverted,classik"], "dropout=classik: no such option; did you mean 'classic'?"),
        (["-m", "dropout.p=0.5,1.5"], "dropout.p=1.5: must be"),
        (["-m", "seed=range(0)"], "this sweep has no jobs"),
        (["-m", "sweep=compare", "optimizer.match=inverted"], "optimizer.match is set by classic_matched"),
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed(arguments, message):
    with pytest.raises(UserError) as caught:
        plan(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_planning_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from dropout_lab.train.__main__ import main\n"
        "try: main(['model=torchvision', 'dropout.p=2'])\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert not {'torch', 'lightning', 'wandb', 'torchvision'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hydra_copies_its_store_but_where_it_only_answers_questions():
    store = ConfigStore.instance()
    with one_store():
        assert copy.deepcopy([store])[0] is store
    assert copy.deepcopy([store])[0] is not store


def test_a_bad_job_is_found_before_any_folder_is_made(tmp_path):
    with pytest.raises(UserError, match=r"^dropout\.p=2: must be the probability to DROP"):
        plan(["-m", "seed=0,1", "dropout.p=0.5,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_jobs_that_share_a_composition_are_those_of_composing_each():
    planned = plan(["-m", "dropout=classic,none", "seed=0,3,5", "data.train_size=100"]).jobs
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        single = [
            compose("train", [f"dropout={kind}", f"seed={seed}", "data.train_size=100"])
            for kind in ("classic", "none")
            for seed in (0, 3, 5)
        ]
    for ours, theirs in zip(planned, single, strict=True):
        assert fingerprints(ours) == fingerprints(theirs)
        assert ours.config.data.seed == theirs.seed


@pytest.mark.slow
def test_a_glob_is_the_names_that_it_matches():
    names = [job.choices["placement"] for job in plan(["-m", "placement=glob([c*,i*],exclude=con*)"]).jobs]
    assert names == ["classifier", "input"]


@pytest.mark.parametrize("header", ["", "# @package _global_\n"])
def test_what_is_true_of_this_machine_only_counts_without_being_asked_for(header, tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    monkeypatch.setattr("dropout_lab.jobs.plan.CONF", tmp_path / "conf")
    (tmp_path / "conf" / "local").mkdir()
    (tmp_path / "conf" / "local" / "default.yaml").write_text(
        header + "defaults: [override /model: mlp]\nseed: 7\ndropout: {p: 0.2}\npaths: {runs: /scratch/runs}\n"
    )
    job = plan(["dropout=classic"]).base
    assert (job.seed, job.dropout.p, job.paths.runs) == (7, 0.2, "/scratch/runs")
    assert job.hydra.runtime.choices.model == "mlp"
    assert plan(["seed=1"]).base.seed == 1
    assert "local" not in job


def test_the_folder_is_settled_once_for_planning_and_running(tmp_path):
    odd = tmp_path / "it's, a=b"
    one = plan([f"hydra.run.dir='{str(odd).replace(chr(39), chr(92) + chr(39))}'"])
    assert one.folder == odd
    assert one.jobs[0].config.hydra.run.dir == one.base.hydra.run.dir == str(odd)
    sweep = plan(["-m", "seed=0,1"])
    assert {job.config.hydra.sweep.dir for job in sweep.jobs} == {str(sweep.folder)}


@pytest.mark.slow
def test_the_fingerprint_ignores_where_a_run_lies_and_nothing_else(tmp_path):
    assert fingerprints(job()) == fingerprints(job(f"hydra.run.dir={tmp_path}", f"paths.runs={tmp_path}"))
    different = [
        job(),
        job("seed=1"),
        job("dropout.p=0.4"),
        job("dropout=classic"),
        job("tags=[a]"),
        job("compile=true"),
    ]
    assert len({fingerprints(cfg).run for cfg in different}) == len(different)


def test_what_a_resolver_says_is_part_of_the_fingerprint(monkeypatch):
    found = []
    for rate in ("0.1", "0.5", "0.5"):
        monkeypatch.setenv("LR", rate)
        found.append(fingerprints(job("optimizer.lr='${oc.decode:${oc.env:LR}}'")))
    assert found[0] != found[1] == found[2]


def test_the_fingerprint_without_the_seed_is_that_of_a_group():
    first, second = job("seed=1"), job("seed=2")
    assert fingerprints(first).run != fingerprints(second).run
    assert fingerprints(first).group == fingerprints(second).group != fingerprints(job("dropout=classic")).group
    assert label(first, first.hydra) == label(second, second.hydra) == "inverted"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "inverted"),
        (["dropout=classic", "dropout.p=0.3", "seed=4"], "classic dropout.p=0.3"),
        (["dropout=none", "model=mlp"], "none model=mlp"),
    ],
)
def test_a_label_is_the_strategy_and_what_else_was_overridden(arguments, expected):
    cfg = job(*arguments)
    assert label(cfg, cfg.hydra) == expected


@pytest.mark.slow
def test_an_arm_is_its_own_label():
    cfgs = [job.config for job in plan(["-m", "sweep=compare", "model=mlp"]).jobs]
    assert list(dict.fromkeys(label(cfg, cfg.hydra) for cfg in cfgs)) == [
        f"{name} model=mlp"
        for name in ("inverted", "classic_matched", "classic_unmatched", "spatial", "none", "unscaled")
    ]
    assert len(cfgs) == 30


def test_resolved_values_are_plain_containers():
    values = resolved(OmegaConf.masked_copy(job(), ["dropout", "placement", "seed"]))
    assert type(values["dropout"]) is dict
    assert values["placement"]["p"] == values["dropout"]["p"]

"""A run that starts from another has its network to begin with, whatever dropout each of them has."""

import re
import shutil

import pandas as pd
import pytest
import torch
from commands import exit_code
from run_folders import same, unfinished

from dropout_lab.jobs.allowed import ALLOWED
from dropout_lab.jobs.plan import plan
from dropout_lab.runs import start_from
from dropout_lab.runs.folder import read_config
from dropout_lab.runs.identity import fingerprints
from dropout_lab.runs.network import restore
from dropout_lab.train.job import assemble

# trained_run has this model, and classic dropout with p = 0.3.
LIKE = ["model.hidden=48", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=0"]
QUICK = [*LIKE, "trainer.max_epochs=2"]


def job(*words):
    return plan([*LIKE, *words]).jobs[0]


def outputs(net, data):
    with torch.no_grad():
        return net.eval()(data.example(64)[0])


@pytest.mark.parametrize(
    "words",
    [
        ["dropout=inverted"],
        ["dropout=classic"],
        ["dropout=classic", "placement.where=activations", "placement.rate=linear"],
        ["dropout=spatial", "dropout.p=0.1"],
        ["dropout=none"],
        ["dropout=unscaled"],
        pytest.param(["dropout=classic", "optimizer.match=inverted", "compile=true"], marks=pytest.mark.slow),
    ],
)
def test_it_computes_what_the_other_one_does(words, trained_run):
    there = restore(trained_run)
    module, data, _ = assemble(job(f"start_from={trained_run}", "seed=3", *words).blank)
    assert {layer.training for layer in module.net.modules()} == {True}
    torch.testing.assert_close(outputs(module.net, data), outputs(there.net, there.data), rtol=1e-5, atol=1e-5)


def test_any_checkpoint_can_be_named_and_nothing_else_is_drawn_than_without(trained_run):
    last = trained_run / "checkpoints" / "last.ckpt"
    module, _, _ = assemble(job(f"start_from={last}", "dropout=classic", "dropout.p=0.3", "seed=3").blank)
    drawn = torch.rand(1)
    for name, value in restore(trained_run, "last").net.state_dict().items():
        assert torch.equal(module.net.state_dict()[name], value)
    assemble(job("dropout=classic", "dropout.p=0.3", "seed=3").blank)
    assert torch.equal(torch.rand(1), drawn)


def told(capsys):
    """What a command that was refused said."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    return line


def curves(folder):
    metrics = pd.read_csv(folder / "metrics.csv")
    return metrics[[key for key in metrics if key.startswith(("epoch", "step", "train/", "val/", "test/"))]]


@pytest.mark.slow
def test_matched_to_inverted_it_trains_as_an_inverted_one_from_the_same_run(trained_run, tmp_path):
    """Its weights, lr and weight decay are rescaled once: to the last bit, as p = 0.5."""
    words = [*QUICK, f"start_from={trained_run}", "optimizer.weight_decay=0.01"]
    strategies = {"inverted": [], "classic": ["optimizer.match=inverted"], "unscaled": ["optimizer.match=inverted"]}
    for name, more in strategies.items():
        assert exit_code(*words, f"dropout={name}", *more, f"hydra.run.dir={tmp_path / name}") == 0
    inverted, classic, unscaled = (curves(tmp_path / name) for name in strategies)
    pd.testing.assert_frame_equal(classic, inverted, check_exact=True)
    pd.testing.assert_series_equal(unscaled["train/loss"], inverted["train/loss"], check_exact=True)


@pytest.mark.slow
def test_a_sweep_over_runs_to_start_from_has_a_row_for_each_on_several_processes_too(
    trained_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # a longer path would be cut off in a label
    shutil.copytree(trained_run, "a")
    runs = f"./a,{trained_run}/checkpoints/last.ckpt"
    words = ["-m", *QUICK, f"start_from={runs}", "dropout=inverted", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert exit_code(*words, "trainer=cpu,ddp_cpu") == 0
    configs = [read_config(tmp_path / "sweep" / str(number)) for number in range(4)]
    assert [config.start_from for config in configs] == [
        *[str(tmp_path / "a")] * 2,
        *[f"{trained_run}/checkpoints/last.ckpt"] * 2,
    ]
    assert configs[0].run.label == f"inverted start_from={runs.partition(',')[0]} trainer=cpu"
    for one, other in ((0, 1), (2, 3)):
        alone, together = (curves(tmp_path / "sweep" / str(number)) for number in (one, other))
        pd.testing.assert_frame_equal(alone, together, rtol=1e-3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/status.json")}
    assert exit_code(*words, "trainer=cpu,ddp_cpu") == 0  # all are done
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_it_goes_on_by_its_folder_from_wherever_the_command_is_given(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(trained_run.parent)
    for name in ("whole", "cut"):
        assert exit_code(*QUICK, f"start_from={trained_run.name}", f"hydra.run.dir={tmp_path / name}") == 0
    (unfinished(tmp_path / "cut") / "checkpoints" / "last.ckpt").unlink()
    monkeypatch.chdir(tmp_path)
    assert exit_code("resume=cut") == 0
    assert same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_the_weights_are_part_of_the_fingerprint_and_not_the_words_for_them(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(trained_run.parent)
    shutil.copytree(trained_run, tmp_path / "0")
    words = (str(trained_run), trained_run.name, f"{trained_run}/checkpoints/best.ckpt", str(tmp_path / "0"))
    same_weights = [fingerprints(job(f"start_from={word}")).run for word in words]
    assert len({*same_weights}) == 1
    planned = job(f"start_from={tmp_path / '0'}")
    assert fingerprints(planned) == fingerprints(planned.config)
    assert fingerprints(planned).run != fingerprints(job()).run
    weights = torch.load(tmp_path / "0" / "checkpoints" / "best.ckpt")
    weights["state_dict"]["net.classifier.bias"] += 1  # trained anew
    torch.save(weights, tmp_path / "0" / "checkpoints" / "best.ckpt")
    assert fingerprints(planned).run not in same_weights


@pytest.mark.slow
def test_a_conversion_that_does_not_exist_is_told_of_the_jobs_that_need_it(tmp_path, capsys, monkeypatch):
    """Between two sigmoids no weight can take the factor."""
    monkeypatch.setattr("dropout_lab.jobs.allowed.ALLOWED", (*ALLOWED, ("evaluate_models", ("torch.nn.Module",))))
    sigmoid = ["model._target_=evaluate_models.Sigmoid", "~model.widths", "~model.hidden", "~model.batch_norm"]
    words = ["trainer.max_epochs=1", "data.train_size=64", "logger=csv", "dropout=classic", *sigmoid]
    assert exit_code(*words, f"hydra.run.dir={tmp_path / 'one'}") == 0
    words = ["-m", *words, f"start_from={tmp_path / 'one'}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert exit_code(*words, "dropout.p=0.5,0.3") == 2
    assert re.search(
        r"job 1 \(classic dropout.p=0.3\): start_from=\S+one: its weights can't be .*Sigmoid", told(capsys)
    )
    assert not (tmp_path / "sweep").exists()


def test_seeds_that_start_from_runs_of_their_own_are_one_group(trained_run, tmp_path):
    for seed in (0, 1):
        shutil.copytree(trained_run, tmp_path / str(seed))
    checkpoint = tmp_path / "1" / "checkpoints" / "best.ckpt"
    torch.save({**torch.load(checkpoint), "seed": 1}, checkpoint)
    jobs = plan(["-m", *LIKE, "seed=0,1", f"start_from={tmp_path}/${{seed}}"]).jobs
    assert [start_from.source(each.own.start_from).parent.parent.name for each in jobs] == ["0", "1"]
    first, second = (fingerprints(each) for each in jobs)
    assert first.run != second.run
    assert first.group == second.group


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["start_from=''"], "start_from=: must be the folder of a run, one of its checkpoint files, or null"),
        (["start_from=RUN/../won"], r"won does not exist; did you mean 'one'\? in \S+ there is one$"),
        (["start_from=RUN/.."], r"is no run, it has no config.yaml; in \S+ there is one$"),
        (["start_from=RUN/checkpoints/lost.ckpt"], r"lost.ckpt does not exist; the run has start_from=\S+best.ckpt, "),
        (
            ["start_from=RUN", "model.hidden=32"],
            r"hidden.weight is \(48, 256\) there \(CNN widths=\[32, 64\] hidden=48 batch_norm=False\) "
            r"and \(32, 256\) here \(CNN .*hidden=32 .*\); it has to be the same model with as many outputs",
        ),
        (["start_from=RUN", "data=synthetic", "+data.num_classes=3"], r"classifier.weight is \(10, 48\) there .* here"),
        (["start_from=RUN", "model.batch_norm=true"], r"is missing there \(CNN .*batch_norm=False\)"),
        (["start_from=RUN", "model=mlp"], r"it has to be the same model"),
        (["start_from=RUN", "trainer.max_epochs=0"], "max_epochs"),
    ],
)
def test_what_can_not_be_started_from_is_one_line_before_anything_starts(words, message, trained_run, tmp_path, capsys):
    words = [word.replace("RUN", str(trained_run)) for word in words]
    like = LIKE[1:] if any("mlp" in word for word in words) else LIKE
    assert exit_code(*like, *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert not (tmp_path / "run").exists()
    assert re.search(message, told(capsys))

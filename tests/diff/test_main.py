"""Two runs are told apart by the first thing in which they differ."""

import json
import shutil

import pandas as pd
import pytest

from dropout_lab.diff import __main__ as diffing
from dropout_lab.diff.replay import Event
from dropout_lab.train.__main__ import main as train_main

# Two epochs of two steps.
WORDS = ["trainer.max_epochs=2", "data.train_size=128", "logger=csv", "callbacks.activation_stats.probe_masks=0"]


def a_run(folder, *words):
    with pytest.raises(SystemExit) as ended:
        train_main([*WORDS, *words, f"hydra.run.dir={folder}"])
    assert ended.value.code == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return a_run(tmp_path_factory.mktemp("one") / "run")


@pytest.mark.slow
def test_equal_runs_do_not_differ(run, tmp_path, capsys):
    again = a_run(tmp_path / "run", "notes=again")
    assert diffing.diff(run, again) == []
    with pytest.raises(SystemExit) as ended:
        diffing.main([str(run), str(again)])
    assert ended.value.code == 0
    assert "nothing differs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "setting", "reason"),
    [
        (["seed=1"], "config    seed: 0 | 1", "in blocks.0.conv.weight: other initial weights: look at seed\n"),
        (["data.seed=1"], "config    data.seed: 0 | 1", "another order of them: look at data.seed ("),
        (["data.label_noise=0.5"], "config    data.label_noise: 0.0 | 0.5", "other classes: look at data.label_noise"),
        (["+data.augment=crop_flip"], "config    data.augment: None | crop_flip", "another way: look at data.augment"),
        (["data.mixup=0.2"], "config    data.mixup: 0.0 | 0.2", "prepared in another way: look at data.mixup (the"),
        (["keyed=false"], "config    keyed: True | False", "dropout: the same input, another mask: look at keyed (the"),
        (["dropout.p=0.3"], "config    dropout.p: 0.5 | 0.3", "the same input, another mask: look at dropout.p"),
        (["dropout=unscaled"], "dropout.scaling: inverted | unscaled", "mask, another output: look at dropout.scaling"),
        (
            ["trainer.accumulate_grad_batches=2"],
            "config    trainer.accumulate_grad_batches: 1 | 2",
            "another loss: look at trainer.accumulate_grad_batches (the",
        ),
        (["dropout=none"], None, "step 0 in 03_blocks_0_dropout: only the first drops there"),
        (["optimizer.lr=0.01"], "config    optimizer.lr: 0.05 | 0.01", "the step before: look at optimizer.lr\n"),
        (["model=mlp"], None, "the networks differ"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_the_first_difference_is_found_and_named(words, setting, reason, run, tmp_path, capsys):
    other = a_run(tmp_path / "run", *words)
    before = {path: path.read_bytes() for folder in (run, other) for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        diffing.main([str(run), str(other)])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert setting is None or setting in said
    assert "records   metrics.csv at step" in said
    assert reason in said
    assert before == {
        path: path.read_bytes() for folder in (run, other) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def pair(tmp_path, write_run):
    """Two equal runs that were never trained."""
    first = write_run(tmp_path / "a")
    shutil.copytree(first, tmp_path / "b")
    return first, tmp_path / "b"


def compared(capsys, *folders):
    """The exit code of a comparison and all that it says."""
    with pytest.raises(SystemExit) as end:
        diffing.main([str(folder) for folder in folders])
    return end.value.code, "".join(capsys.readouterr())


def of_status(folder, **changes):
    about = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(about | changes))


def without_numbers(folder, how):
    for name in ("metrics.csv", "activations.csv"):
        if how == "no file":
            (folder / name).unlink()
        elif how == "no byte":
            (folder / name).write_text("")
        else:
            table = pd.read_csv(folder / name)
            keys = {"epoch", "step", "mode", "layer", "stat"}
            table[[column for column in table if column not in keys]] = float("nan")
            (table.head(0) if how == "no row" else table).to_csv(folder / name, index=False)


@pytest.mark.parametrize("how", ["no file", "no byte", "no row", "nan"])
def test_without_a_number_there_is_nothing_to_compare(pair, how, capsys):
    a, b = pair
    for folder in pair:
        without_numbers(folder, how)
        of_status(folder, status="failed", error="E")
    code, said = compared(capsys, a, b)
    assert (code, said) == (
        2,
        f"error: nothing to compare: no number is recorded in {a} (failed: E) and {b} (failed: E)\n",
    )


def test_where_one_has_no_number_its_status_is_told_and_nothing_is_trained_again(pair, capsys):
    a, b = pair
    without_numbers(b, "no file")
    of_status(b, status="interrupted", error=f"no room in {b}")
    code, said = compared(capsys, a, b)
    assert code == 1
    assert said.splitlines() == [
        "status    ok | interrupted: no room in RUN",
        f"records   nothing to compare: no number is recorded in {b} (interrupted: no room in RUN)",
    ]


def test_a_table_that_only_one_has_is_no_number_that_differs(pair, capsys):
    (pair[1] / "activations.csv").unlink()
    code, said = compared(capsys, *pair)
    assert (code, said) == (1, "records   activations.csv: no number in that of the second run\n")


def test_what_both_came_to_is_told_unless_it_is_well(pair, capsys):
    assert compared(capsys, *pair) == (0, "nothing differs: configuration, code, records\n")
    for folder in pair:
        of_status(folder, status="failed", error="E")
    assert compared(capsys, *pair)[1] == "nothing differs: configuration, code, records; status of both: failed: E\n"


def test_a_file_that_is_no_table_is_one_line(pair, capsys):
    (pair[1] / "metrics.csv").write_text("a,b\n1,2\n")
    code, said = compared(capsys, *pair)
    assert code == 2
    assert said.startswith(f"error: {pair[1] / 'metrics.csv'}: can't be read as a table of a run: ")
    assert said.count("\n") == 1


def test_where_no_key_differs_all_that_could_are_named():
    ours, theirs = (Event(3, "mask", "03_dropout", digest) for digest in (b"a", b"b"))
    said = diffing._explain(ours, theirs, [], differing=["tags"])
    assert said.endswith("in 03_dropout: the same input, another mask: look at keyed, seed, dropout, placement")


@pytest.mark.slow
def test_what_is_not_in_the_configuration_is_blamed_on_the_rest(run, tmp_path):
    other = a_run(tmp_path / "run")
    metrics = pd.read_csv(other / "metrics.csv")
    metrics.loc[metrics["val/loss"].last_valid_index(), "val/loss"] += 1
    metrics.to_csv(other / "metrics.csv", index=False)
    records, replay = diffing.diff(run, other)
    assert records.startswith("records   metrics.csv at step 4, epoch 1: val/loss")
    assert "1 of" in records
    assert "not in their configurations" in replay


@pytest.mark.slow
def test_bad_arguments_are_one_line(run, tmp_path, capsys):
    for words, reason in (
        ([str(run)], "folders needed: 2, given: 1"),
        ([str(run), str(tmp_path)], "no config.yaml"),
    ):
        with pytest.raises(SystemExit) as ended:
            diffing.main(words)
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err

"""Several strategies in one run: stochastic depth on the branches beside plain dropout before the classifier."""

import pandas as pd
import pytest
from commands import exit_code
from run_folders import same, stopped

from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.jobs.build import build_data, build_network
from dropout_lab.jobs.plan import plan
from dropout_lab.modules.classification import Classifier
from dropout_lab.report.__main__ import main as report
from dropout_lab.runs import read

MODEL = [
    "model=wide_resnet",
    "model.depth=10",
    "model.width=1",
    "placement=classifier",
    "more_dropout=stochastic_depth",
]
SMALL = [
    *("data.train_size=200", "data.batch_size=40", *MODEL, "more_dropout.stochastic_depth.dropout.p=0.3"),
    "dropout_schedule@more_dropout.stochastic_depth.dropout_schedule=linear",
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.precision=64-true", "trainer.log_every_n_steps=2", "logger=csv"),
    *("trainer.sync_batchnorm=true", "callbacks.activation_stats.every_n_steps=2"),
]


def layers(*words):
    """Mask and p of each layer, by its name."""
    config = plan([*MODEL, *words]).jobs[0].blank
    net = build_network(config, build_data(config)).net
    found = [layer for layer in net.modules() if hasattr(layer, "monte_carlo")]
    return {layer.name: (layer.mask, round(layer.p, 3)) for layer in found}


def test_each_strategy_is_at_its_sites_with_its_p_and_by_its_depth():
    branches = {f"{name}_conv2": ("sample", p) for name, p in zip(layers(), (0.067, 0.133, 0.2), strict=False)}
    assert [*layers().values()] == [*branches.values(), ("element", 0.5)]
    assert [*layers("dropout.p=0.1", "more_dropout.stochastic_depth.dropout.p=0.3").values()] == [
        *(("sample", p) for p in (0.1, 0.2, 0.3)),
        ("element", 0.1),
    ]


def test_none_is_none_at_the_sites_of_all():
    assert layers("dropout=none").keys() == layers().keys()
    assert {p for _, p in layers("dropout=none").values()} == {0}


def test_an_option_of_another_group_is_chosen_for_a_strategy():
    chosen = layers("dropout@more_dropout.stochastic_depth.dropout=spatial")
    assert [mask for mask, _ in chosen.values()] == ["channel", "channel", "channel", "element"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["more_dropout.stochastic_depth.dropout.p=2"],
            "error: more_dropout.stochastic_depth.dropout.p=2: must be the probability to DROP a unit",
        ),
        (["+more_dropout.mine.dropout.p=0.1"], "error: more_dropout.mine: has no placement; see conf/more_dropout"),
        (["placement=branches"], "error: placement.where=branches and branches puts two dropout layers at "),
        (
            ["more_dropout=stochastic"],
            "error: more_dropout=stochastic: no such option; did you mean 'stochastic_depth'?",
        ),
        (
            [
                "dropout@more_dropout.stochastic_depth.dropout=concrete",
                "dropout_schedule@more_dropout.stochastic_depth.dropout_schedule=late",
            ],
            "learns its p, and no schedule can: use the constant one",
        ),
    ],
)
def test_what_can_not_be_is_one_line_before_anything_starts(words, message, tmp_path, capsys):
    assert exit_code(*MODEL, *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep of two strategies and two seeds."""
    folder = tmp_path_factory.mktemp("several")
    assert exit_code("-m", *SMALL, "dropout=inverted,none", "seed=0,1", f"hydra.sweep.dir={folder}") == 0
    return folder


@pytest.mark.slow
def test_the_table_has_a_row_for_each_and_the_schedule_is_that_of_one(trained):
    report([str(trained)])
    table = pd.read_csv(trained / "table.csv").set_index("strategy")
    assert table["seeds"].to_dict() == {"inverted": 2, "none": 2}
    note = "With it, at sites of its own: stochastic_depth (p=0.3, placement.where=branches)."
    assert note in (trained / "report.html").read_text()
    rates = pd.read_csv(trained / "0" / "metrics.csv").filter(like="dropout_p/").dropna()
    assert len(rates.columns) == 4
    head, *branches = sorted(rates.columns, reverse=True)
    assert (rates[head] == 0.5).all()
    assert all(rates[each].is_monotonic_increasing and rates[each].nunique() > 1 for each in branches)


@pytest.mark.slow
def test_none_is_one_row_whatever_p_the_others_have(tmp_path):
    small = ["trainer.max_epochs=1", "data.train_size=64", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    swept = "more_dropout.stochastic_depth.dropout.p=0.1,0.2"
    assert exit_code("-m", *MODEL, *small, "dropout=inverted,none", swept) == 0
    report([str(tmp_path)])
    rows = pd.read_csv(tmp_path / "table.csv")["strategy"].tolist()
    assert len(rows) == 3
    assert rows.count("none") == 1


@pytest.mark.slow
def test_an_interrupted_run_ends_as_the_whole_one(trained, tmp_path):
    with stopped(Classifier, lambda module, _: module.global_step == 7):
        assert exit_code(*SMALL, f"hydra.run.dir={tmp_path}") == 1
    assert exit_code(*SMALL, f"hydra.run.dir={tmp_path}") == 0
    assert same(tmp_path, trained / "0", checkpoints=("last", "best"))


@pytest.mark.slow
def test_two_processes_are_one(trained, tmp_path):
    assert exit_code(*SMALL, "trainer=ddp_cpu", "trainer.devices=2", f"hydra.run.dir={tmp_path}") == 0
    one, two = (pd.read_csv(folder / "metrics.csv") for folder in (trained / "0", tmp_path))
    pd.testing.assert_frame_equal(one, two, check_like=True, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_it_is_evaluated_and_folded_and_has_no_other_length(trained, tmp_path, capsys):
    tested = read.open(trained / "0").metrics.filter(like="test/").iloc[-1]
    assert evaluate(trained / "0") == tested.to_dict()
    fold(trained / "0", tmp_path / "weights.pt")
    assert exit_code(*SMALL, "dropout=inverted", f"resume={trained / '0'}", "trainer.max_epochs=3") == 2
    assert "stochastic_depth.dropout_schedule=linear depends on the length" in capsys.readouterr().err

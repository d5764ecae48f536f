"""Rows of the table are runs of one configuration, called as the runs were called when they started."""

import os
from functools import partial

from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import arm_of, baseline, group, kind_of


def names(folder, skipped=None):
    return [strategy.name for strategy in group(read_runs(folder), skipped or {})[0]]


def written_before(folder, write_run, config=None, **arguments):
    """A run of before labels and options were saved."""
    return write_run(folder, config={"run": {"dir": str(folder)}} | (config or {}), **arguments)


SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "match": None}
ADAM = {"_target_": "torch.optim.Adam", "lr": 0.001, "betas": [0.9, 0.999], "match": None}
CHOSEN_SGD, CHOSEN_ADAM = (
    {"choices": {"optimizer": name}, "config": {"optimizer": node}} for name, node in (("sgd", SGD), ("adam", ADAM))
)


def test_runs_are_grouped_by_label_over_seeds(tmp_path, write_run):
    for n, (arm, seed) in enumerate([("classic_matched", 0), ("classic_matched", 1), ("classic_unmatched", 0)]):
        write_run(tmp_path / str(n), kind="classic", arm=arm, seed=seed)
    strategies, left_out = group(read_runs(tmp_path), {})
    assert [(s.name, len(s.runs)) for s in strategies] == [("classic_matched", 2), ("classic_unmatched", 1)]
    assert not left_out


def test_a_row_is_called_by_the_option_and_not_by_the_class_it_builds(tmp_path, write_run):
    dropout = {"_target_": "my_fork.layers.StochasticDepth", "p": 0.5}
    write_run(tmp_path / "0", label="drop_path optimizer=adam", config={"dropout": dropout})
    (strategy,) = group(read_runs(tmp_path), {})[0]
    assert (strategy.name, strategy.kind) == ("drop_path optimizer=adam", "StochasticDepth")


def test_runs_of_before_labels_are_called_by_arm_or_kind_of_dropout_and_what_differs(tmp_path, write_run):
    old = partial(written_before, write_run=write_run)
    old(tmp_path / "0", kind="inverted", p=0.2)
    old(tmp_path / "1", kind="inverted", p=0.5)
    old(tmp_path / "2", kind="inverted", p=0.5, seed=1)
    old(tmp_path / "3", kind="spatial")
    old(tmp_path / "4", kind="classic", config={"optimizer": SGD})
    old(tmp_path / "5", kind="classic", config={"optimizer": SGD | {"match": "inverted"}})
    old(tmp_path / "6", kind="classic", arm="mine")
    assert names(tmp_path) == [
        "inverted p=0.2", "inverted p=0.5", "spatial", "classic match=None", "classic match=inverted", "mine",
    ]  # fmt: skip


def test_runs_of_one_label_with_other_settings_are_not_averaged(tmp_path, write_run):
    write_run(tmp_path / "0", arm="mine", p=0.2)
    write_run(tmp_path / "1", arm="mine", p=0.5)
    write_run(tmp_path / "2", arm="mine", p=0)
    assert names(tmp_path) == ["mine p=0.2", "mine p=0.5", "mine p=0"]


def test_runs_of_one_label_with_other_options_are_told_apart_by_the_options(tmp_path, write_run):
    write_run(tmp_path / "0", **CHOSEN_SGD)
    write_run(tmp_path / "1", **CHOSEN_ADAM)
    write_run(tmp_path / "2", **CHOSEN_ADAM, seed=1)
    assert names(tmp_path) == ["inverted optimizer=sgd", "inverted optimizer=adam"]


def test_a_setting_that_the_option_does_not_bring_is_named_besides(tmp_path, write_run):
    write_run(tmp_path / "0", **CHOSEN_SGD)
    write_run(tmp_path / "1", choices={"optimizer": "sgd"}, config={"optimizer": SGD | {"lr": 0.2}})
    write_run(tmp_path / "2", **CHOSEN_ADAM)
    with_width = CHOSEN_ADAM["config"] | {"model": {"_target_": "dropout_lab.models.cnn", "width": 64}}
    write_run(tmp_path / "3", choices={"optimizer": "adam"}, config=with_width)
    assert names(tmp_path) == [
        "inverted width=32 optimizer=sgd lr=0.1",
        "inverted width=32 optimizer=sgd lr=0.2",
        "inverted width=32 optimizer=adam lr=0.001",
        "inverted width=64 optimizer=adam lr=0.001",
    ]


def test_an_experiment_is_named_for_all_that_it_brings(tmp_path, write_run):
    brought = {"trainer": {"max_epochs": 40}, "data": {"train_size": 500}}
    write_run(tmp_path / "0", choices={"experiment": "rate"}, config=brought)
    write_run(tmp_path / "1")
    assert names(tmp_path) == ["inverted experiment=rate", "inverted experiment=null"]


def test_an_option_that_changes_no_setting_tells_nothing_apart(tmp_path, write_run):
    write_run(tmp_path / "0", choices={"placement": "default"}, seed=0)
    write_run(tmp_path / "1", choices={"placement": "existing"}, seed=1)
    write_run(tmp_path / "2", choices={"placement": "existing"}, p=0.2)
    assert names(tmp_path) == ["inverted p=0.5", "inverted p=0.2"]


def test_beside_runs_of_before_options_were_saved_settings_are_named(tmp_path, write_run):
    written_before(tmp_path / "0", write_run, config={"optimizer": SGD})
    write_run(tmp_path / "1", choices={"optimizer": "sgd"}, config={"optimizer": SGD | {"lr": 0.2}})
    assert names(tmp_path) == ["inverted lr=0.1", "inverted lr=0.2"]


def test_one_configuration_is_one_row_in_whatever_words_it_was_asked_for(tmp_path, write_run):
    write_run(tmp_path / "0", label="inverted optimizer.lr=0.1", seed=0)
    write_run(tmp_path / "1", label="inverted optimizer.lr=1e-1", seed=1)
    write_run(tmp_path / "2", label="inverted", seed=2)
    data = {"_target_": "dropout_lab.data.Digits", "batch_size": 128, "seed": 0, "split_seed": 0}  # not the run's seed
    write_run(tmp_path / "3", label="inverted data.seed=0", seed=3, config={"data": data})
    strategies, _ = group(read_runs(tmp_path), {})
    assert [(s.name, len(s.runs)) for s in strategies] == [
        ("inverted optimizer.lr=0.1", 3),
        ("inverted data.seed=0", 1),
    ]


def test_two_arms_of_one_configuration_are_two_rows(tmp_path, write_run):
    write_run(tmp_path / "0", arm="first")
    write_run(tmp_path / "1", arm="second")
    assert names(tmp_path) == ["first", "second"]


def test_the_base_of_a_name_is_all_of_it_but_p(tmp_path, write_run):
    for n, p in enumerate((0.2, 0.5)):
        write_run(tmp_path / f"{n}a", label=f"inverted dropout.p={p} optimizer=adam", p=p, **CHOSEN_ADAM)
        write_run(tmp_path / f"{n}b", **CHOSEN_SGD, p=p)
    bases = {strategy.name: strategy.base for strategy in group(read_runs(tmp_path), {})[0]}
    assert bases == {
        "inverted dropout.p=0.2 optimizer=adam": "inverted optimizer=adam",
        "inverted dropout.p=0.5 optimizer=adam": "inverted optimizer=adam",
        "inverted p=0.2": "inverted",
        "inverted p=0.5": "inverted",
    }


def test_the_p_that_none_ignores_does_not_tell_runs_apart(tmp_path, write_run):
    write_run(tmp_path / "0", kind="none", p=0.2, seed=0)
    write_run(tmp_path / "1", kind="none", p=0.5, seed=1)
    assert names(tmp_path) == ["none"]


def test_a_seed_seen_twice_counts_once_and_the_newer_run_counts(tmp_path, write_run):
    old, new = write_run(tmp_path / "b"), write_run(tmp_path / "a")
    os.utime(old / "status.json", (1e9, 1e9))
    strategies, left_out = group(read_runs(tmp_path), {})
    assert [run.folder for run in strategies[0].runs] == [new]
    assert [(run.folder, run.status) for run in left_out] == [(old, "duplicate")]
    assert "same configuration and seed as a" in left_out[0].reason


def test_what_diverged_is_left_out_and_counted_unless_it_was_run_again(tmp_path, write_run):
    write_run(tmp_path / "0", seed=0)
    for name, seed in (("1", 1), ("2", 2), ("3", 3)):
        write_run(tmp_path / name, seed=seed, status={"status": "diverged", "error": "train/loss is nan at step 7"})
    write_run(tmp_path / "4", seed=3)
    (strategy,), left_out = group(read_runs(tmp_path), {})
    assert [run.name for run in strategy.runs] == ["0", "4"]
    assert [run.name for run in strategy.diverged] == ["1", "2"]
    assert [run.reason for run in left_out] == ["diverged: train/loss is nan at step 7"] * 3


def test_strategies_that_could_not_run_say_why(tmp_path, write_run):
    write_run(tmp_path / "0", kind="inverted")
    write_run(tmp_path / "1", kind="spatial", status={"status": "failed", "error": "ValueError: no maps at 11_fc"})
    strategies, left_out = group(read_runs(tmp_path), {"gaussian": "no", "inverted": "ran all the same"})
    reasons = [(strategy.name, strategy.reason) for strategy in strategies]
    assert reasons == [
        ("inverted", None),
        ("spatial", "failed: ValueError: no maps at 11_fc"),
        ("gaussian", "could not be applied: no"),
    ]
    assert [run.name for run in left_out] == ["1"]


def test_the_baseline_is_none_and_else_the_first(tmp_path, write_run):
    for n, kind in enumerate(("inverted", "none", "classic")):
        write_run(tmp_path / str(n), kind=kind)
    strategies, _ = group(read_runs(tmp_path), {})
    assert baseline(strategies).name == "none"
    assert baseline([s for s in strategies if s.name != "none"]).name == "inverted"
    assert baseline([]) is None


def test_kinds_of_dropout_have_the_names_of_the_config_group():
    lab = {"_target_": "dropout_lab.dropout.Dropout", "p": 0.5}
    assert kind_of(lab | {"scaling": "inverted"}) == ("inverted", "inverted")
    assert kind_of(lab | {"scaling": "classic", "mask": "element"}) == ("classic", "classic")
    assert kind_of(lab | {"mask": "channel"}) == ("spatial", "inverted")
    assert kind_of(lab | {"mask": "channel", "scaling": "classic"}) == ("spatial classic", "classic")
    assert kind_of(lab | {"noise": "gaussian"}) == ("gaussian", "inverted")
    assert kind_of(lab | {"mask": "sample"}) == ("sample", None)
    assert kind_of({"_target_": "dropout_lab.dropout.none", "p": 0.5}) == ("none", "none")
    assert kind_of({"_target_": "my_fork.DropBlock", "p": 0.5}) == ("DropBlock", None)


def test_without_an_arm_a_run_is_known_to_experiments_by_its_option_of_dropout_or_by_its_kind():
    dropout = {"_target_": "my_fork.DropBlock", "p": 0.5}
    chosen = {"label": "drop_block model=mlp", "choices": {"dropout": "drop_block"}}
    assert arm_of({"dropout": dropout, "run": chosen, "arm": "mine"}) == "mine"
    assert arm_of({"dropout": dropout, "run": chosen}) == "drop_block"
    assert arm_of({"dropout": dropout}) == "DropBlock"


def keeps(folder):
    (strategy,) = group(read_runs(folder), {})[0]
    return strategy.keeps()


def test_what_each_layer_keeps_is_read_from_the_rates_that_were_recorded(tmp_path, write_run):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, p=0.5, rates=(0.125, 0.25, 0.5))
    assert keeps(tmp_path) == [0.875, 0.75, 0.5]


def test_without_dropout_everything_is_kept(tmp_path, write_run):
    write_run(tmp_path / "0", kind="none", p=0.5)
    assert keeps(tmp_path) == [1, 1, 1]


def test_rates_that_differ_between_runs_are_not_one(tmp_path, write_run):
    write_run(tmp_path / "0", seed=0)
    write_run(tmp_path / "1", seed=1, rates=(0.5, 0.5, 0.25))
    assert keeps(tmp_path) is None


def test_rates_that_change_over_training_are_not_one(tmp_path, write_run):
    with (write_run(tmp_path / "0", epochs=2) / "activations.csv").open("a") as file:
        file.write("27,2,train,04_conv2_dropout,p,0.25\n")
    assert keeps(tmp_path) is None


def test_with_a_schedule_the_rates_of_one_flush_say_nothing_about_the_steps_before(tmp_path, write_run):
    schedule = {"_target_": "dropout_lab.dropout.schedules.linear"}
    write_run(tmp_path / "0", epochs=1, config={"dropout_schedule": schedule})
    assert keeps(tmp_path) is None
    write_run(tmp_path / "constant" / "0", epochs=1, config={"dropout_schedule": {"_target_": "schedules.constant"}})
    assert keeps(tmp_path / "constant") == [0.5, 0.5, 0.5]


def test_rates_that_were_not_recorded_are_not_made_up(tmp_path, write_run):
    path = write_run(tmp_path / "0") / "activations.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if ",p," not in line))
    assert keeps(tmp_path) is None


def test_of_a_strategy_whose_law_is_unknown_nothing_is_said(tmp_path, write_run):
    write_run(tmp_path / "0", config={"dropout": {"_target_": "my_fork.DropBlock", "p": 0.5}})
    assert keeps(tmp_path) is None

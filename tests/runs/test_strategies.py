import os

from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import baseline, group, kind_of


def names(folder, skipped=None):
    return [strategy.name for strategy in group(read_runs(folder), skipped or {})[0]]


def test_runs_are_grouped_by_arm_over_seeds(tmp_path, write_run):
    for n, (arm, seed) in enumerate([("classic_matched", 0), ("classic_matched", 1), ("classic_unmatched", 0)]):
        write_run(tmp_path / str(n), kind="classic", arm=arm, seed=seed)
    strategies, left_out = group(read_runs(tmp_path), {})
    assert [(s.name, len(s.runs)) for s in strategies] == [("classic_matched", 2), ("classic_unmatched", 1)]
    assert not left_out


def test_without_an_arm_the_kind_of_dropout_and_what_differs_name_a_strategy(tmp_path, write_run):
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1, "match": None}
    write_run(tmp_path / "0", kind="inverted", p=0.2)
    write_run(tmp_path / "1", kind="inverted", p=0.5)
    write_run(tmp_path / "2", kind="inverted", p=0.5, seed=1)
    write_run(tmp_path / "3", kind="spatial")
    write_run(tmp_path / "4", kind="classic", config={"optimizer": optimizer})
    write_run(tmp_path / "5", kind="classic", config={"optimizer": optimizer | {"match": "inverted"}})
    assert names(tmp_path) == [
        "inverted p=0.2", "inverted p=0.5", "spatial", "classic match=None", "classic match=inverted",
    ]  # fmt: skip


def test_runs_of_one_arm_with_other_settings_are_not_averaged(tmp_path, write_run):
    write_run(tmp_path / "0", arm="mine", p=0.2)
    write_run(tmp_path / "1", arm="mine", p=0.5)
    assert names(tmp_path) == ["mine p=0.2", "mine p=0.5"]


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

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dropout_lab.report import build
from dropout_lab.report.table import WIDTH, as_text, rows
from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import group

HALF = 4.302652729911275 * 0.01 / 3**0.5  # t(0.975, 2) times the standard error of three seeds


def test_the_numbers_are_the_hand_computed_ones(sweep):
    table = pd.read_csv(sweep / "table.csv").set_index("strategy")
    none = table.loc["none"]
    assert none["seeds"] == 3
    assert none["test_acc_mean"] == pytest.approx(0.96)
    assert none["test_acc_ci95"] == pytest.approx(HALF)
    assert none["test_nll_mean"] == pytest.approx(0.2)
    assert none["gap_nll_mean"] == pytest.approx(0.03)
    assert none["seconds_mean"] == pytest.approx(7.0)
    table = table.drop("gaussian")
    assert table["gain_train_mean"].to_dict() == {"inverted": 1, "classic": 0.5, "unscaled": 0.5, "none": 1}
    assert table["gain_eval_mean"].to_dict() == {"inverted": 1, "classic": 0.5, "unscaled": 1, "none": 1}
    # The generator lets the ratio fall from theory at the first epoch, 2 and 0.25 at dropout 3, towards 1 at the tenth.
    ratios = {"inverted": 1 + 1 / 1.9, "classic": 1 + 1 / 1.9, "unscaled": 1 - 0.75 / 1.9, "none": 1}
    assert table["ratio_mean"].to_dict() == pytest.approx(ratios)


def test_differences_are_paired_at_equal_seeds(sweep):
    table = pd.read_csv(sweep / "table.csv").set_index("strategy")
    inverted = table.loc["inverted"]
    assert inverted["baseline"] == "none"
    assert inverted["test_acc_minus_baseline_mean"] == pytest.approx(0.01)
    # The interval is of the differences (standard deviation 0.001), a tenth of the interval of the accuracies.
    assert inverted["test_acc_minus_baseline_ci95"] == pytest.approx(HALF / 10)
    assert inverted["test_acc_minus_baseline_n"] == 3
    assert np.isnan(table.loc["none", "test_acc_minus_baseline_mean"])


def test_the_text_is_aligned_and_fits_a_terminal(sweep):
    text = (sweep / "table.txt").read_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    heads = "strategy seeds test acc % test NLL gap (NLL) gain train gain eval ratio s/run"
    assert lines[0].split() == heads.split()
    table = text.partition("\n\n")[0].splitlines()
    body = [line for line in table if line.startswith(("inverted ", "classic ", "unscaled ", "none "))]
    assert len({len(row) for row in body}) == 1
    assert body[-1].split("  ")[0] == "none"
    assert "96.00 ± 2.48" in body[-1]
    assert "+0.030 ± 0.000" in body[-1]


def test_a_strategy_that_could_not_run_is_a_row_that_says_why(tmp_path, write_run):
    write_run(tmp_path / "0", kind="inverted")
    write_run(tmp_path / "1", kind="spatial", status={"status": "failed", "error": "ValueError: no | maps"})
    (tmp_path / "skipped.json").write_text('{"gaussian": "needs a GPU"}')
    report = build(tmp_path)
    said = {line.split("  ")[0]: line for line in report.text.splitlines()}
    assert "failed: ValueError: no | maps" in said["spatial"]
    assert "could not be applied: needs a GPU" in said["gaussian"]
    assert "| spatial | 0 | failed: ValueError: no \\| maps |" in (tmp_path / "table.md").read_text()
    reasons = pd.read_csv(tmp_path / "table.csv").set_index("strategy")["reason"]
    assert reasons["gaussian"] == "could not be applied: needs a GPU"
    page = report.page.read_text()
    assert "failed: ValueError: no | maps" in page
    assert "could not be applied: needs a GPU" in page


def test_a_row_says_how_many_of_its_runs_diverged(tmp_path, write_run):
    for seed in range(8):
        diverged = {"status": "diverged", "error": "train/loss is nan at step 7"}
        write_run(tmp_path / str(seed), kind="classic", seed=seed, status=diverged if seed == 3 else {})
    text, frame = build(tmp_path).text, pd.read_csv(tmp_path / "table.csv")
    assert "classic   7 of 8, 1 diverged  " in text
    assert "3: diverged: train/loss is nan at step 7" in text
    assert "| classic | 7 of 8, 1 diverged |" in (tmp_path / "table.md").read_text()
    assert "<td>7 of 8, 1 diverged</td>" in (tmp_path / "report.html").read_text()
    assert frame[["seeds", "diverged", "test_acc_n"]].values.tolist() == [[7, 1, 7]]


def test_the_markdown_tables_have_as_many_cells_in_each_row(sweep):
    first, second = (sweep / "table.md").read_text().split("Paired differences at equal seeds:")
    for text, count in ((first, 5), (second, 3)):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + count
        assert len({line.count("|") for line in lines}) == 1


def test_the_markdown_has_the_paired_differences_with_their_intervals(sweep):
    text = (sweep / "table.md").read_text()
    assert "| minus none | pairs | test acc % | test NLL | gap (NLL) |" in text
    assert "| inverted | 3 | +1.00 ± 0.25 | -0.010 ± 0.000 | +0.010 ± 0.000 |" in text


def crossed(tmp_path, write_run, **varied):
    """Runs of two strategies at two seeds and three values of a key of the data; accuracies known to the digit."""
    (key, values), listed = next(iter(varied.items())), ["data.fold", "data.split_seed"]
    data = {"_target_": "dropout_lab.data.Digits", "folds": 3 if key == "fold" else None, "fold": 0, "split_seed": 0}
    for kind, base in (("inverted", 0.9), ("none", 0.8)):
        for seed in (0, 1):
            for value in values:
                more = {"replicates": listed, "data": data | {key: value}}
                final = {"test/acc": base + value**2 / 100 + seed / 1000}
                write_run(tmp_path / f"{kind}{seed}{value}", kind=kind, seed=seed, final=final, config=more)
    return rows(group(read_runs(tmp_path), {})[0])


@pytest.mark.parametrize(("key", "overlap"), [("fold", 1 / 2), ("split_seed", 0)])
def test_seeds_crossed_with_parts_of_the_data_are_one_row_whose_interval_is_over_the_parts(
    tmp_path, write_run, key, overlap
):
    table = crossed(tmp_path, write_run, **{key: (0, 1, 2)})
    assert [(row.strategy.name, row.seeds, len(row.strategy.runs)) for row in table] == [
        ("inverted", 3, 6),
        ("none", 3, 6),
    ]
    values = np.array([0.9, 0.91, 0.94]) + 0.0005
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) * (1 / 3 + overlap) ** 0.5
    found = table[0].values["test_acc"]
    assert (found.mean, found.half, found.n) == (pytest.approx(values.mean()), pytest.approx(half), 3)
    assert as_text(table).splitlines()[0].split()[1] == ("folds" if key == "fold" else "splits")


def test_differences_are_paired_at_equal_parts_and_seeds(tmp_path, write_run):
    difference = crossed(tmp_path, write_run, fold=(0, 1, 2))[0].differences["test_acc"]
    assert (difference.n, difference.mean) == (3, pytest.approx(0.1))
    assert difference.half == pytest.approx(0, abs=1e-12)

import numpy as np
import pandas as pd
import pytest

from dropout_lab.report import build
from dropout_lab.report.table import WIDTH

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

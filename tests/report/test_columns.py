"""Laws of the columns: a number with its interval, and of how many seeds where not of all."""

import pandas as pd
import pytest

from dropout_lab.modules.columns import OF_CLASSIFICATION, Column
from dropout_lab.report import build
from dropout_lab.report.columns import TableColumn
from dropout_lab.verdict.statistics import Interval


def test_one_seed_shows_no_interval(tmp_path, write_run):
    write_run(tmp_path / "0", final={"test/acc": 0.9})
    row = next(line for line in build(tmp_path).text.splitlines() if line.startswith("inverted"))
    assert "90.00" in row
    assert "±" not in row


def test_a_number_that_some_seeds_lack_says_how_many_have_it(tmp_path, write_run):
    for seed, loss in enumerate((0.1, 0.3, float("nan"))):
        write_run(tmp_path / str(seed), seed=seed, final={"test/loss": loss})
    text = build(tmp_path).text
    assert "(n=2)" in text
    assert "2 (counted): metrics.csv has no finite test/loss" in text


@pytest.mark.parametrize(
    ("value", "seeds", "text"),
    [
        (Interval(0.5, 0.25, 3), 3, "50.0 ± 25.0"),
        (Interval(0.5, 0.25, 2), 3, "50.0 ± 25.0 (n=2)"),
        (Interval(0.5, float("nan"), 1), 1, "50.0"),
        (Interval(float("nan"), float("nan"), 0), 3, "–"),
    ],
)
def test_a_cell_is_a_mean_in_its_unit_with_what_is_known_of_it(value, seeds, text):
    assert TableColumn("key", "title", "label", "explained", lambda run, layer: 0.0, 1, 100).text(value, seeds) == text


def test_the_gain_has_its_interval_and_is_empty_where_no_run_could_tell_it(tmp_path, write_run):
    for number, kind in enumerate(("inverted", "inverted", "unscaled", "unscaled")):
        table = pd.read_csv(write_run(tmp_path / str(number), kind=kind, seed=number) / "activations.csv")
        untold = (table.stat == "gain") & (table["mode"] == "train") & (kind == "unscaled" or number == 1)
        table.loc[untold, "value"] = float("nan")
        table.to_csv(tmp_path / str(number) / "activations.csv", index=False)
    lines = build(tmp_path).text.splitlines()
    inverted, unscaled = (next(line for line in lines if line.startswith(kind)) for kind in ("inverted", "unscaled"))
    assert "1.00 (n=1)  1.00 ± 0.00" in inverted
    assert "–  1.00 ± 0.00" in unscaled


def test_a_callbacks_number_of_another_part_is_not_called_one_of_the_test_part(tmp_path, write_run):
    measured = [*OF_CLASSIFICATION, Column("auroc/test", "AUROC"), Column("auroc/val", "AUROC in validation")]
    columns = {"columns": [column._asdict() for column in measured]}
    write_run(tmp_path / "0", final={"auroc/test": 0.7, "auroc/val": 0.8}, config=columns)
    build(tmp_path)
    found = pd.read_csv(tmp_path / "table.csv").iloc[0]
    assert (found["test_auroc_mean"], found["auroc_in_validation_mean"]) == (0.7, 0.8)


def test_a_signed_column_shows_the_sign_and_one_without_intervals_shows_none():
    plain = TableColumn("key", "title", "label", "explained", lambda run, layer: 0.0, signed=True, with_interval=False)
    assert [plain.text(Interval(mean, 0.1, 3), 3) for mean in (0.5, -0.5)] == ["+0.50", "-0.50"]

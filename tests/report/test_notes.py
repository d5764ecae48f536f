"""Laws of the notes: they explain with the table's own numbers, and only what it shows."""

import re

import pandas as pd
import pytest
import yaml

from dropout_lab.modules.columns import Column
from dropout_lab.report import build


def said(report):
    """The text under the table."""
    return " ".join(report.text.partition("\n\n")[2].split())


def test_the_sentences_explain_drift_and_matching_with_the_tables_own_numbers(sweep):
    text = " ".join((sweep / "table.txt").read_text().split())
    assert "q^(-(l-1)/2) at the l-th dropout layer from the input, unscaled q^((l+1)/2)" in text
    assert "for the last, l = 3, and q = 0.5 these are 2.00 and 0.25" in text
    assert "init/q" in text
    assert "lr/q^2" in text
    assert "weight decay*q^2" in text
    assert "± is the half width" in text


def test_theory_is_not_quoted_for_a_table_of_several_p(tmp_path, write_run):
    write_run(tmp_path / "0", p=0.2)
    write_run(tmp_path / "1", p=0.5)
    text = said(build(tmp_path))
    assert "q^((l+1)/2)" in text
    assert "these are" not in text


def test_without_dropout_the_ratio_has_no_theory(tmp_path, write_run):
    write_run(tmp_path / "0", kind="none")
    text = said(build(tmp_path))
    assert "ratio is the mean at the last dropout layer in train over that in eval" in text
    assert "q" not in re.findall(r"\w+", text)


@pytest.mark.parametrize(
    ("absent", "shown"),
    [("nothing", {"gain", "ratio"}), ("ratio", {"gain"}), ("gain", set())],  # without a gain no layer is dropout's
)
def test_a_column_that_is_not_shown_is_not_explained_and_its_picture_not_described(tmp_path, write_run, absent, shown):
    table = pd.read_csv(write_run(tmp_path / "0") / "activations.csv")
    table[~table.stat.str.startswith(absent)].to_csv(tmp_path / "0" / "activations.csv", index=False)
    metrics = pd.read_csv(tmp_path / "0" / "metrics.csv")
    metrics.loc[:, ~metrics.columns.str.contains(f"_{absent}")].to_csv(tmp_path / "0" / "metrics.csv", index=False)
    report = build(tmp_path)
    page = report.page.read_text()
    for word in ("gain", "ratio"):
        assert (word in report.text) == (word in shown)
        assert (f'<figure id="{word}"' in page) == (word in shown)
    assert "±" not in report.text  # of one seed


def test_what_stands_in_no_cell_is_not_explained(tmp_path, write_run):
    """Of two seeds each number that has an interval is known once, and the loss is no NLL."""
    rmse = {"columns": [Column("rmse", "RMSE")._asdict()]}
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, final={"test/rmse": 2.0 if seed else float("nan")}, config=rmse)
        (tmp_path / str(seed) / "activations.csv").unlink()
    text = build(tmp_path).text
    assert "2.000 (n=1)" in text
    for word in ("±", "NLL", "gap", "ratio", "gain"):
        assert word not in text.replace("no finite test/rmse, gap/loss", "")


def test_a_gap_is_explained_whatever_the_loss_is_called(tmp_path, write_run):
    write_run(tmp_path / "0", config={"columns": [Column("loss", "mean squared error", short="MSE")._asdict()]})
    text = said(build(tmp_path))
    assert "gap is validation minus training data" in text
    assert "NLL" not in text


def test_where_nothing_is_counted_nothing_is_explained(tmp_path, write_run):
    write_run(tmp_path / "0", kind="classic", status={"status": "failed", "error": "E"})
    assert said(build(tmp_path)) == "Not in the table: 0: failed: E"


def test_remarks_on_runs_that_count_are_called_so_where_nothing_is_left_out(tmp_path, write_run):
    (write_run(tmp_path / "0") / "activations.csv").unlink()
    report = build(tmp_path)
    assert "\nRemarks:\n  0 (counted): " in report.text
    assert '<h2 id="left-out">Remarks</h2>' in report.page.read_text()
    write_run(tmp_path / "1", kind="classic", status={"status": "failed", "error": "E"})
    report = build(tmp_path)
    assert "\nNot in the table:\n  1: failed: E" in report.text
    assert "Remarks" not in report.text
    assert '<h2 id="left-out">Not in the table</h2>' in report.page.read_text()


def test_noise_of_the_networks_own_is_told_once_and_of_which_rows(tmp_path, write_run):
    for number, (kind, noise) in enumerate(
        {
            "inverted": {"off": ["a: X drops"], "on": [], "elsewhere": []},
            "spatial": {"off": ["a: X drops"], "on": ["b: Y drops"], "elsewhere": ["element 1/3"]},
            "none": {"off": ["a: X drops"], "on": 3, "elsewhere": None},  # a damaged folder
        }.items()
    ):
        folder = write_run(tmp_path / str(number), kind=kind)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "noise": noise}))
    report = build(tmp_path)
    assert said(report).count("Switched off in the network: a: X drops.") == 1
    assert said(report).count("Left on in the network of spatial: b: Y drops.") == 1
    for text in (report.text, report.page.read_text(), (tmp_path / "table.md").read_text()):
        assert "spatial (element 1/3)" in text
        assert "so many sites have that mask" in text

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from dropout_lab.report import build
from dropout_lab.report.figures import figures
from dropout_lab.report.table import WIDTH, rows
from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import group

# Accuracies of three seeds: mean 0.96, standard deviation 0.01, half width t(0.975, 2) * 0.01 / sqrt(3).
ACCURACIES = (0.95, 0.96, 0.97)
HALF = 4.302652729911275 * 0.01 / 3**0.5


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, write_run):
    """A folder with a report on three seeds of each of four strategies."""
    folder = tmp_path_factory.mktemp("sweep")
    number = 0
    for kind, shift in (("inverted", 0.01), ("classic", 0.0), ("unscaled", -0.2), ("none", 0.0)):
        for seed, accuracy in enumerate(ACCURACIES):
            # The differences to "none" are shift - 0.001, shift and shift + 0.001.
            wobble = 0.0 if kind == "none" else 0.001 * (seed - 1)
            final = {"test/acc": accuracy + shift + wobble, "test/loss": 0.2 - shift, "gap/loss": 0.03 + shift}
            write_run(folder / str(number), kind=kind, arm=kind, seed=seed, final=final)
            number += 1
    (folder / "skipped.json").write_text('{"gaussian": "no"}')
    (folder / "table.txt").write_text(build(folder).text)
    return folder


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
    heads = "strategy seeds test acc % test NLL gap (NLL) gain train gain eval train/eval s/run"
    assert lines[0].split() == heads.split()
    body = [line for line in lines if line.startswith(("inverted ", "classic ", "unscaled ", "none "))]
    assert len({len(row) for row in body}) == 1
    assert body[-1].split("  ")[0] == "none"
    assert "96.00 ± 2.48" in body[-1]
    assert "+0.030 ± 0.000" in body[-1]


def test_the_sentences_explain_drift_and_matching_with_the_tables_own_numbers(sweep):
    text = " ".join((sweep / "table.txt").read_text().split())
    assert "q^(-(l-1)/2)" in text
    assert "q^((l+1)/2)" in text
    assert "here l = 3, q = 0.5: 2.00 and 0.25" in text
    assert "init/q" in text
    assert "lr/q^2" in text
    assert "weight decay*q^2" in text


def test_without_statistics_of_activations_nothing_is_said_or_drawn_of_them(tmp_path, write_run):
    (write_run(tmp_path / "0", config={"callbacks": {"checkpoint": {}}}) / "activations.csv").unlink()
    report = build(tmp_path)
    heads, *_ = report.text.splitlines()
    assert " ".join(heads.split()) == "strategy seeds test acc % test NLL gap (NLL) s/run"
    assert not [word for word in ("train/eval", "gain", "matched") if word in report.text]
    page = report.page.read_text()
    assert 'id="curves"' in page
    assert not [name for name in ("activations", "profile", "gain", "ratio", "heatmap") if f'id="{name}"' in page]


def test_a_strategy_has_one_name_in_text_markdown_csv_page_and_figures(tmp_path, write_run):
    labels = ["drop_path optimizer=adam", "classic_matched", "none ~callbacks.lr_monitor"]
    for n, (label, kind) in enumerate(zip(labels, ("inverted", "classic", "none"), strict=True)):
        write_run(tmp_path / str(n), label=label, kind=kind, epochs=2)
    built = build(tmp_path)
    assert [line.split("  ")[0] for line in built.text.split("\n\n")[0].splitlines()[2:]] == labels
    markdown = (tmp_path / "table.md").read_text()
    assert re.findall(r"^\| ([^|]*) \| 1 \| 9", markdown, re.MULTILINE) == labels
    assert f"| minus {labels[2]} |" in markdown
    assert pd.read_csv(tmp_path / "table.csv")["strategy"].tolist() == labels
    page = built.page.read_text()
    assert [unescape(chip) for chip in re.findall(r'class="chip".*?</svg>(.*?)</button>', page)] == labels
    assert f"3 runs: {', '.join(labels)}; 1 seed each." in unescape(page)
    drawn = figures(rows(group(read_runs(tmp_path), {})[0]))
    assert [label.get_text() for label in drawn["accuracy"].axes[0].get_yticklabels()] == labels


def test_theory_is_not_quoted_for_a_table_of_several_p(tmp_path, write_run):
    write_run(tmp_path / "0", p=0.2)
    write_run(tmp_path / "1", p=0.5)
    assert "here l" not in build(tmp_path).text


def test_one_seed_shows_no_interval(tmp_path, write_run):
    write_run(tmp_path / "0", final={"test/acc": 0.9})
    row = next(line for line in build(tmp_path).text.splitlines() if line.startswith("inverted"))
    assert "90.00" in row
    assert "±" not in row


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


def test_a_number_that_some_seeds_lack_says_how_many_have_it(tmp_path, write_run):
    for seed, loss in enumerate((0.1, 0.3, float("nan"))):
        write_run(tmp_path / str(seed), seed=seed, final={"test/loss": loss})
    text = build(tmp_path).text
    assert "(n=2)" in text
    assert "2 (counted): metrics.csv has no finite test/loss" in text


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


def test_folders_that_do_not_count_are_listed_in_the_terminal(tmp_path, write_run):
    write_run(tmp_path / "0")
    for n in range(1, 14):
        write_run(tmp_path / str(n), seed=n, status={"status": "failed", "error": f"E{n}"})
    text = build(tmp_path).text
    assert "  1: failed: E1" in text
    assert "... and 3 more, all listed on the page" in text
    assert "failed: E13" in (tmp_path / "report.html").read_text()


def test_a_second_report_is_the_same_as_the_first(sweep):
    assert build(sweep).text == (sweep / "table.txt").read_text()

"""Laws of a report as a whole: one name for a strategy everywhere, only what there is, the same again."""

import json
import os
import re
from html import unescape

import pandas as pd
import pytest
import yaml  # type: ignore[import-untyped]

from dropout_lab.report import build
from dropout_lab.report.figures import figures
from dropout_lab.report.table import rows
from dropout_lab.runs.read import read_runs
from dropout_lab.runs.strategies import group


def test_runs_that_claim_nothing_have_no_such_section(tmp_path, write_run):
    write_run(tmp_path / "0")
    report = build(tmp_path)
    assert 'id="claims"' not in report.page.read_text()
    assert (report.claimed, report.verdict) == (None, "")
    assert not (tmp_path / "claims.png").exists()


def test_without_statistics_of_activations_nothing_is_said_or_drawn_of_them(tmp_path, write_run):
    (write_run(tmp_path / "0", config={"callbacks": {"checkpoint": {}}}) / "activations.csv").unlink()
    report = build(tmp_path)
    heads, *_ = report.text.splitlines()
    assert " ".join(heads.split()) == "strategy seeds test acc % test NLL gap (NLL) s/run"
    assert not [word for word in ("ratio", "gain", "matched") if word in report.text]
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
    assert [label.get_text() for label in drawn["score"].axes[0].get_yticklabels()] == labels


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


RUNS, LAYERS, FLUSHES = 500, 40, 30


@pytest.mark.slow
def test_a_report_of_500_runs_of_40_layers_is_a_page_of_less_than_20_megabytes(tmp_path, write_run):
    layers = tuple(f"{n:02d}_block{n}_dropout" for n in range(LAYERS))
    first = write_run(tmp_path / "first" / "0", layers=layers, epochs=FLUSHES)
    config = yaml.safe_load((first / "config.yaml").read_text())
    for n in range(1, RUNS):  # the same numbers under other names: links cost no disk, and are read all the same
        folder = tmp_path / "sweep" / str(n)
        folder.mkdir(parents=True)
        for name in ("metrics.csv", "activations.csv", "status.json"):
            os.link(first / name, folder / name)
        changed = config | {"seed": n % 5, "optimizer": config["optimizer"] | {"lr": n // 5 / 100}}
        (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    report = build(tmp_path)
    assert report.text.count("inverted lr=") >= 100
    assert report.page.stat().st_size < 20e6  # of which plotly is 5


HOSTILE = "\x1b[2J\x1b]0;x\x07=cmd|' /c x'!A1\n\r\t| a | ![x](http://x) <img src=x> \u202etxet\u2028" + "long" * 10_000


def test_texts_from_folders_do_nothing_and_keep_their_columns(tmp_path, write_run):
    column = {"key": "acc", "title": HOSTILE, "unit": HOSTILE, "short": HOSTILE}
    formula = {"label": "=1+1", "kind": "none"}
    for n, about in enumerate([{"label": HOSTILE}, {"label": HOSTILE + "2"}, formula]):
        write_run(tmp_path / f"{n}\x1b[31m\n", **about, config={"columns": [column], "notes": HOSTILE})
    write_run(tmp_path / "3", status={"status": "failed", "error": HOSTILE, "command": HOSTILE})
    write_run(tmp_path / "4", status={"status": HOSTILE})
    (tmp_path / "skipped.json").write_text(json.dumps({"@sum": HOSTILE}))
    report = build(tmp_path)
    texts = [report.text, (tmp_path / "table.md").read_text(), (tmp_path / "table.csv").read_text()]
    for text in [*texts, report.page.read_text()]:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", text.partition("plotly")[0])
    head, rule, *lines = report.text.partition("\n\n")[0].splitlines()
    assert len(rule) == len(head) == len(lines[0]) < 1000
    table = [line for line in texts[1].splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table[:4]} == {len(re.findall(r"(?<!\\)\|", table[0]))}
    assert not re.search(r"(?<!\\)(<img|\[x)", texts[1])
    frame = pd.read_csv(tmp_path / "table.csv")
    assert {"'=1+1", "'@sum"} < {*frame["strategy"]}
    assert not [cell for cell in map(str, [*frame, *frame.to_numpy().flat]) if cell[0] in "=+@"]

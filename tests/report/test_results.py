"""RESULTS.md of run folders whose numbers the test chooses."""

import re

import pytest
from fake_runs import write_run

from dropout_lab import compare
from dropout_lab.cli import UserError
from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.jobs.job import resolved
from dropout_lab.jobs.plan import plan
from dropout_lab.report import results


def write_depth(folder, effect=-0.1, seeds=8):
    """The experiment `depth`, `rising` being better by `effect` in NLL."""
    section = resolved(plan(["experiment=depth"]).base.verdict)
    for seed in range(seeds):
        for arm in ("constant", "rising", "falling"):
            loss = 0.3 + 0.01 * seed + (effect + 0.001 * seed if arm == "rising" else 0)
            final = {"test/loss": loss, "test/acc": 0.9}
            path = folder / f"{arm}{seed}"
            write_run(path, arm=arm, seed=seed, final=final, epochs=1, config={"verdict": section})


@pytest.mark.slow
def test_an_experiment_is_told_with_claim_table_and_verdict(tmp_path):
    write_depth(tmp_path / "depth")
    text = results.results(tmp_path)
    top, _, section = text.partition("\n## depth\n")
    about = results.header("depth")
    assert f"| [depth](#depth) | {about['Claim']} | 2 holds, 1 does not hold here |" in top
    assert "Not run: concrete, data_size, early_late" in top
    assert about["Source"] in section
    assert "Figures: `claims.png` beside `report.html`, where they are shown, in `runs/reproduce/depth`." in section
    assert (tmp_path / "depth" / "claims.png").is_file()
    assert "`scripts/compare experiment=depth`: 24 runs, 3.8 minutes, 20" in section
    assert "commit 28458a5f00, torch 2.15.0." in section
    assert "| rising | 8 | 90.00 ± 0.00 |" in section
    assert "| rising has a lower NLL than constant | test/loss, rising - constant | -0.0965 [" in section
    assert "| < 0 | 8 | 0.012 | **holds** |" in section
    assert text == results.results(tmp_path)


@pytest.mark.slow
def test_an_experiment_without_runs_keeps_what_was_said_of_it(tmp_path):
    before = (REPOSITORY / "RESULTS.md").read_text()
    write_depth(tmp_path / "depth", seeds=1)
    after = results.results(tmp_path, before)
    of_depth = re.compile(r"^\| \[depth\].*\n|^## depth\n(?:(?!## ).*\n)*", re.MULTILINE)
    assert of_depth.sub("", after) == of_depth.sub("", before)
    assert of_depth.findall(after) != of_depth.findall(before)
    assert "| rising | 1 | 90.00 |" in of_depth.findall(after)[1]


@pytest.mark.slow
def test_runs_that_do_not_count_are_mentioned(tmp_path):
    write_depth(tmp_path / "depth", seeds=1)
    (tmp_path / "depth" / "rising0" / "status.json").write_text('{"status": "failed", "error": "out of luck"}')
    assert "Not counted: 1 runs, e.g. rising0: failed: out of luck" in results.results(tmp_path)


def test_without_any_run_there_is_nothing_to_write(tmp_path, capsys):
    with pytest.raises(UserError, match="no finished run of any experiment; scripts/reproduce makes them"):
        results.results(tmp_path)
    with pytest.raises(SystemExit) as ended:
        results.main([str(tmp_path), str(tmp_path / "RESULTS.md")])
    assert ended.value.code == 2
    assert not (tmp_path / "RESULTS.md").exists()


def test_a_field_missing_from_the_first_comment_is_named(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# Claim: it works,\n#   mostly\nseed: 1\n")
    monkeypatch.setattr(results, "CONF", tmp_path)
    with pytest.raises(UserError, match=r"mine\.yaml: its first comment must say 'Source: \.\.\.'"):
        results.header("mine")


@pytest.mark.slow
def test_a_comparison_of_an_experiment_ends_with_its_verdicts(tmp_path, monkeypatch, capsys):
    def execute(job_plan):
        write_depth(job_plan.folder, seeds=1)
        return 0

    monkeypatch.setattr(compare, "execute", execute)
    monkeypatch.setattr(compare, "refusals", lambda jobs: {})
    with pytest.raises(SystemExit) as ended:
        compare.main(["experiment=depth", "seed=0", f"hydra.sweep.dir={tmp_path}"])
    assert ended.value.code == 0
    assert "TOO FEW SEEDS TO TELL: rising has a lower NLL than constant" in capsys.readouterr().out


def test_what_is_written_by_hand_about_baselines_is_kept():
    text = (REPOSITORY / "RESULTS.md").read_text()
    assert results.BY_HAND in text
    assert results._earlier("vgg_image", text)[1] == text[text.index("## vgg_image\n") : text.index(results.BY_HAND)]

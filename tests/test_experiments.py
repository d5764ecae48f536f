"""Every file of conf/experiment states beforehand what it tests, with arms and seeds that can answer it."""

import re
import subprocess

import pytest
from hydra.utils import instantiate

from dropout_lab import compare
from dropout_lab.jobs.conf import CONF
from dropout_lab.jobs.job import resolved
from dropout_lab.jobs.plan import plan
from dropout_lab.report.results import experiments, header
from dropout_lab.verdict.metrics import LAYER_METRICS
from dropout_lab.verdict.network_metrics import MEASURES
from dropout_lab.verdict.statement import read_statement
from dropout_lab.verdict.statistics import smallest_p

pytestmark = pytest.mark.slow  # one composition for each experiment
SCALARS = {"test/acc", "test/loss", "gap/loss", "gap/acc", "train_eval/loss", "val/loss"}
NEEDS = {"epochs": ["data.file=text.txt"]}
OF_PAIRS = {"weights/difference", "weights/norm_ratio", "val/loss/difference"}


@pytest.fixture(scope="module", params=experiments())
def experiment(request):
    """Name, the sweep's settings, and what is claimed."""
    cfg = plan([f"experiment={request.param}", *NEEDS.get(request.param, [])]).base
    return request.param, cfg.hydra.sweeper, read_statement(resolved(cfg.verdict))


def test_the_first_comment_says_what_where_and_how(experiment):
    name, _, _ = experiment
    assert header(name)["Run"] == " ".join([f"scripts/compare experiment={name}", *NEEDS.get(name, [])])


def test_commands_in_comments_can_be_typed():
    texts = [path.read_text() for path in CONF.rglob("*.yaml")]
    commands = [line for text in texts for line in re.findall(r"^# *(?:Run: )?(scripts/.*)", text, re.MULTILINE)]
    assert len(commands) > len(experiments())
    for command in commands:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert not done.returncode, done.stderr


def test_every_arm_of_a_claim_is_one_of_the_sweep(experiment):
    _, sweeper, statement = experiment
    assert {arm for claim in statement.claims for arm in claim.arms} <= {*sweeper.arms}


def test_every_arm_of_a_figure_is_one_of_the_sweep(experiment):
    _, sweeper, statement = experiment
    lines = [line for plot in statement.figure for line in plot.lines.values()]
    assert {*(arm for line in lines for arm, *_ in line.points), *statement.filters} <= {*sweeper.arms}


def test_seeds_are_enough_to_tell(experiment):
    _, sweeper, statement = experiment
    seeds = len(instantiate(sweeper).jobs([])) // len(sweeper.arms)
    assert len(statement.claims) * smallest_p(seeds) <= statement.alpha


@pytest.mark.parametrize("name", experiments())
def test_every_arm_composes(name):
    arms = [job.alike["arm"] for job in plan(["-m", f"experiment={name}", "seed=0", *NEEDS.get(name, [])]).jobs]
    assert len(arms) == len(set(arms)) > 1


def test_contrasts_compare_like_with_like(experiment):
    """The weights of a contrast add up to 0, but for single arms that a theory speaks of."""
    _, _, statement = experiment
    for claim in statement.claims:
        assert claim.pair or len(claim.contrast) == 1 or sum(claim.contrast.values()) == pytest.approx(0, abs=1e-9)


def test_metrics_are_known(experiment):
    _, _, statement = experiment
    lines = [line for plot in statement.figure for line in plot.lines.values()]
    metrics = [claim.metric for claim in statement.claims if not claim.pair]
    for metric in [*metrics, *(metric for line in lines for _, metric, _ in line.points)]:
        name, _, behind = metric.rpartition("/")
        known = metric in SCALARS | set(MEASURES) or (name in LAYER_METRICS and behind)
        assert known or (name in MEASURES and behind)
    assert {claim.metric for claim in statement.claims if claim.pair} <= OF_PAIRS


def test_an_experiment_brings_its_own_arms(monkeypatch):
    planned = []
    monkeypatch.setattr(compare, "compare", lambda plan, skipped: planned.append(plan) or 0)
    with pytest.raises(SystemExit):
        compare.main(["experiment=depth", "seed=0"])
    assert {job.alike["arm"] for job in planned[0].jobs} == {"constant", "rising", "falling"}


def test_claims_that_cannot_be_tested_are_refused_before_anything_runs(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        compare.main(["experiment=depth", "seed=0", "verdict.alpha=2", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    assert ended.value.code == 2
    assert "verdict.alpha: Input should be less than 1" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()

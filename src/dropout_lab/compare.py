"""Compare dropout strategies: one sweep, a table with intervals, a page of pictures.

`python -m dropout_lab.compare [key=value ...]` runs conf/sweep/compare.yaml: six strategies at the same sites, five
seeds each. `dropout=a,b seed=0,1` choose others; every other override holds for all runs. `experiment=NAME` brings
arms of its own, and claims about them (conf/experiment), which get their verdict.

Its jobs run side by side, one for each free core or GPU; `hydra/launcher=basic` runs them one after another.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dropout_lab.cli import UserError, one_line_errors, root_cause
from dropout_lab.jobs.job import resolved
from dropout_lab.jobs.overrides import only_asks
from dropout_lab.jobs.plan import Plan, plan
from dropout_lab.jobs.workers import free_cores, visible_gpus
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.folder import LOOK, SKIPPED, read_status
from dropout_lab.runs.resume import with_those_of_resumed
from dropout_lab.train.__main__ import main as train
from dropout_lab.train.patience import telling
from dropout_lab.train.sweep import execute, known, refusals, require_feasible
from dropout_lab.verdict.statement import read_statement

SIDE_BY_SIDE = "hydra/jobs=side_by_side"  # weaker than what an experiment or the command line says of launchers


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and exit as `train` does."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        own_arms = any(word.startswith(("sweep=", "experiment=")) for word in given)
        chosen = [] if own_arms else ["sweep=compare"]
        if only_asks(given):
            return train([*chosen, SIDE_BY_SIDE, *given])
        multirun = [] if {"-m", "--multirun"} & set(given) else ["-m"]
        with telling("planning"):
            job_plan = planned_side_by_side(with_those_of_resumed([*multirun, *chosen, *given]))
            job_plan, skipped = startable(job_plan)
        sys.exit(compare(job_plan, skipped))


def planned_side_by_side(words: Sequence[str]) -> Plan:
    """The plan of a command line, its jobs side by side unless it chooses a launcher; or one after another.

    So where each job takes several devices for itself, and where there is but one place: another process would only
    import everything once more.
    """
    side_by_side = plan([*words, SIDE_BY_SIDE])
    if side_by_side.base.hydra.launcher.get("n_jobs", 1) is not None:
        return side_by_side
    one_device = all(job.alike["trainer"]["devices"] == 1 for job in side_by_side.known)
    if not one_device or (free_cores() == 1 and not visible_gpus()):
        return plan(words)
    return side_by_side


def startable(job_plan: Plan) -> tuple[Plan, dict[str, str]]:
    """The plan without the jobs that can't be run, and of these the name of each strategy with the reason.

    Raises:
        UserError: no strategy applies, the experiment's claims are none, or something is in the way of all jobs.
    """
    if section := job_plan.known[0].config.get("verdict"):
        read_statement(resolved(section))
    if not job_plan.jobs:
        raise UserError("a comparison needs to know its jobs, which a search does not: scripts/train -m sweep=optuna")
    refused = refusals(job_plan)
    skipped = {known(job_plan)[number].label: reason for number, reason in refused.items()}
    if len(refused) == len(job_plan.jobs):
        raise UserError(next(iter(skipped.values())))
    if refused:
        job_plan = job_plan.without(refused)
    require_feasible(job_plan)
    return job_plan, skipped


def compare(job_plan: Plan, skipped: Mapping[str, str]) -> int:
    """Run the jobs of a plan, then print the table and write the page.

    Args:
        job_plan: of jobs that can be run.
        skipped: strategy that does not apply to the model -> why, which is a row of the table.

    Returns:
        the exit code: 0 also where a strategy does not apply.
    """
    exit_code = execute(job_plan)
    write_whole(job_plan.folder / SKIPPED, json.dumps(skipped, indent=1).encode())

    from dropout_lab import report

    _look([job_plan.folder / str(number) for number in range(len(job_plan.jobs))])
    claims = job_plan.known[0].config.get("verdict")
    if claims:
        _measure(job_plan.folder)
    page = report.build(job_plan.folder)
    print(f"\n{page.text}\n")
    if claims:
        print(f"{page.verdict}\n")
    print(f"Pictures:  {page.page}")
    offline = sorted((job_plan.folder / "wandb").glob("offline-run-*"))
    if offline:
        print(f"To W&B:    wandb sync {job_plan.folder}/wandb/offline-run-*   ({len(offline)} runs)")
    print(
        "Next:      scripts/compare dropout.p=0.2          a lower rate\n"
        "           scripts/compare model=mlp              another network\n"
        "           scripts/compare dropout=inverted,gaussian seed=0,1,2\n"
        "           scripts/lab explain p=0.75             the arithmetic behind it, without training"
    )
    return exit_code


def _measure(folder: Path) -> None:
    """Measure what the experiment claims of trained networks, for the page, which builds none."""
    from dropout_lab.verdict.__main__ import judge_folder

    try:
        judge_folder(folder)
    except UserError:  # the page says why
        return
    except Exception as error:  # hours of training must not end without a table for want of a verdict
        print(f"\nNot all claims can be measured: {root_cause(error)}")


def _look(runs: Sequence[Path]) -> None:
    """Let the network of the first run that went well look at a test image, for the page, unless someone has looked."""
    run = next((run for run in runs if read_status(run).get("status") == "ok"), None)
    if run is None or any((run / "look" / LOOK).exists() for run in runs):
        return
    from dropout_lab.look.files import write
    from dropout_lab.look.subject import NoImagesError, from_run
    from dropout_lab.look.views import look_at

    try:
        subject = from_run(run, "best", "")
        write(look_at(subject, subject.p), run / "look")
    except NoImagesError:
        return
    except Exception as error:  # hours of training must not end without a table for want of a picture
        print(f"\nNo picture of a network looking at an image: {root_cause(error)}")


if __name__ == "__main__":
    main()

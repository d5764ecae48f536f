"""Train one run, or with -m many: `python -m dropout_lab.train [key=value ...]`, see conf/.

The command line is planned and checked before anything starts; torch is imported after that, so that a typo is answered
at once.
"""

import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from hydra import main as hydra_main

from dropout_lab.cli import UserError, one_line_errors
from dropout_lab.jobs.composition import ROOT
from dropout_lab.jobs.conf import CONF, VERSION_BASE, one_store
from dropout_lab.jobs.overrides import only_asks, options_last
from dropout_lab.jobs.plan import as_meant, plan
from dropout_lab.runs.resume import with_those_of_resumed
from dropout_lab.train.patience import telling
from dropout_lab.train.sweep import execute, known, refusals, require_feasible


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 when a job failed, 2 when the command line is wrong, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        if only_asks(arguments):
            with one_store():
                _answer([word for word in arguments if word not in ("-m", "--multirun")])
            return
        with telling("planning"):
            job_plan = plan(with_those_of_resumed(arguments))
            require_feasible(job_plan)
            for number, reason in refusals(job_plan).items():
                which = f"job {number} ({known(job_plan)[number].label}): "
                raise UserError((which if job_plan.multirun else "") + reason)
        exit_code = execute(job_plan)
        if job_plan.multirun:
            print(f"table and page: scripts/lab report {shlex.quote(str(job_plan.folder))}", file=sys.stderr)
        sys.exit(exit_code)


def _answer(arguments: Sequence[str]) -> None:
    """Let Hydra answer a command line that only asks: --help, --cfg job, ..."""
    sys.argv = [sys.argv[0], *options_last(as_meant(arguments))]
    said = StringIO()
    try:
        with redirect_stdout(said):
            hydra_main(version_base=VERSION_BASE, config_path=str(CONF), config_name=ROOT)(lambda _: None)()
    finally:
        print(said.getvalue(), end="")  # not by Hydra, which has a traceback where nobody reads on


if __name__ == "__main__":
    main()

"""Build what every job needs before the first one starts: what only building shows is then one line, not a failure."""

from collections.abc import Sequence

from omegaconf import DictConfig

from dropout_lab.config import fingerprint
from dropout_lab.errors import UserError
from dropout_lab.run_folder import root_cause


def refusals(jobs: Sequence[DictConfig]) -> dict[int, str]:
    """Build data, network and optimizer of every job, each distinct configuration once.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data or model cannot be built.
    """
    from dropout_lab.build import build_data, build_network, build_optimizer, build_rates

    why: dict[str, str | None] = {}
    found: dict[int, str] = {}
    for number, job in enumerate(jobs):
        key = fingerprint(job, without=["seed"])
        if key not in why:
            try:
                data = build_data(job)
                data.setup("fit")
                data.train_dataloader()
            except Exception as error:
                raise UserError(root_cause(error)) from error
            try:
                net, _ = build_network(job, data)
                build_rates(job, net)
                build_optimizer(job, net, data)
                why[key] = None
            except Exception as error:
                why[key] = root_cause(error)
        if reason := why[key]:
            found[number] = reason
    return found

"""Train one run, or with -m many: `python -m dropout_lab.train [key=value ...]`, see conf/.

Top to bottom: the command line is planned and checked, Hydra starts the jobs, each job trains and tests in a folder
of its own, and failures are summed up. Torch is imported inside the job, so that a typo is answered at once.
"""

import hashlib
import logging
import sys
import warnings
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dropout_lab import processes
from dropout_lab.config import CONF, VERSION_BASE, Plan, fingerprint, label, plan, resolved
from dropout_lab.errors import UserError, full_errors, one_line_errors
from dropout_lab.offline import warn_of_losses
from dropout_lab.preflight import outline, refusals
from dropout_lab.progress import SweepProgress
from dropout_lab.resume import check_folder, is_done, start_point
from dropout_lab.run_folder import RunFolder, provenance, read_status, root_cause
from dropout_lab.watch import watching

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

_told: set[str] = set()  # warnings of this process, so that a sweep gives each once
_progress: SweepProgress | None = None  # of the sweep that runs in this process


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 when a job failed, 2 when the command line is wrong, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        if _only_asks(arguments):
            _hydra(arguments)
            return
        job_plan = plan(arguments)
        check_plan(job_plan)
        for number, reason in refusals(job_plan.known).items():
            which = f"job {number} ({label(job_plan.known[number], job_plan.known[number].hydra)}): "
            raise UserError((which if job_plan.multirun else "") + reason)
        sys.exit(execute(job_plan))


def check_plan(job_plan: Plan) -> None:
    """Refuse folders that hold something else, and devices that are not there.

    Raises:
        UserError: the first thing that is in the way.
    """
    group = processes.together()
    if group > 1 and (job_plan.multirun or not any("hydra.run.dir=" in word for word in job_plan.arguments)):
        raise UserError(f"{group} processes were started together: they train one run, in a hydra.run.dir you name")
    for number, job in enumerate(job_plan.known):
        folder = job_plan.folder / str(number) if job_plan.multirun else job_plan.folder
        if job_plan.jobs:
            check_folder(folder, fingerprint(job), job.resume)
        count = max(processes.planned(job), group)
        if job.data.batch_size % count:
            raise UserError(
                f"data.batch_size={job.data.batch_size} is the batch over all devices and must be divisible by their "
                f"number, {count}"
            )


def execute(job_plan: Plan, skip: Sequence[int] = ()) -> int:
    """Run the jobs of a plan and sum up what failed.

    Args:
        job_plan: what to run.
        skip: numbers of jobs to leave out.

    Returns:
        the exit code: 0, 1 or 130.
    """
    global _progress
    arguments = [*job_plan.hydra_arguments, *([f"hydra.sweeper.skip={list(skip)}"] if skip else [])]
    names = _names(job_plan, skip)
    watch: AbstractContextManager[None] = nullcontext()
    if job_plan.multirun:
        print(outline(job_plan, skip), file=sys.stderr)
        progress = SweepProgress(len(names))
        if job_plan.elsewhere:
            watch = watching(progress, names)
        _progress = progress
    broken = False
    try:
        with watch:
            _hydra(arguments)
    except SystemExit as end:  # Hydra has said why
        broken = end.code != 0
    except KeyboardInterrupt:
        print(f"\ninterrupted; what was done is in {job_plan.folder}", file=sys.stderr)
        return 130
    finally:
        if _progress is not None:
            _progress.close()
            _progress = None
        _close_wandb()
    if processes.rank():  # the first process of the run does it
        return int(broken)
    return max(_sum_up(job_plan, names), int(broken))


def run(cfg: DictConfig) -> float:
    """One job, as Hydra calls it: never raises, so that the sweep goes on; its folder says how it ended.

    Returns:
        the best validation loss, NaN when the job failed.
    """
    describe(cfg, HydraConfig.get())
    folder = RunFolder(Path(cfg.run.dir), cfg.run.config_hash, writes=processes.rank() == 0)
    if _progress is not None:
        _progress.start(cfg.run.name)
    try:
        if is_done(folder.path, folder.config_hash):
            log.warning("%s is done already, with this configuration and this code", folder.path)
            return float(read_status(folder.path)["objective"])
        checkpoint = start_point(folder.path, folder.config_hash, cfg.resume, folder.writes)
        count = processes.needed(cfg)
        with folder.recording(), processes.failing_as_one(folder.path), processes.leaving_nothing():
            if count > 1:
                folder.write_config(resolved(cfg))
                folder.objective = processes.launch(folder.path, count)
            else:
                folder.objective = train(cfg, folder, checkpoint)
        return folder.objective
    except SystemExit:  # Lightning's answer to Ctrl-C and SIGTERM; in a sweep it must not look like the end of one job
        raise KeyboardInterrupt from None
    except Exception as error:
        if full_errors():
            log.exception("job failed")
        print(f"failed: {cfg.run.name}: {root_cause(error)}", file=sys.stderr)
        return float("nan")
    finally:
        if _progress is not None:
            _progress.done()
        else:  # this process may be ended at any time
            _close_wandb()


def train(cfg: DictConfig, folder: RunFolder, checkpoint: Path | None = None) -> float:
    """Build, fit, and test the best checkpoint.

    Args:
        cfg: the job's configuration, ``run`` filled in.
        folder: its folder.
        checkpoint: go on from here; None: from the beginning.

    Returns:
        the best value of what the checkpoints monitor; the last validation loss where they monitor nothing.
    """
    import lightning
    import torch

    from dropout_lab.build import build_data, build_network, build_optimizer, build_rates, instantiate
    from dropout_lab.checkpoints import AtomicCheckpointIO, Resume
    from dropout_lab.classifier import Classifier

    quieten_lightning()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    folder.write_config(resolved(cfg))
    lightning.seed_everything(cfg.seed, verbose=False)
    data = build_data(cfg)
    net, layers = build_network(cfg, data)
    config = {**resolved(cfg), "layers": layers}
    folder.write_config(config)
    if folder.writes:
        _tell_sites(net, table=_is_alone(cfg))

    if cfg.compile:
        net.compile()
    classifier = Classifier(
        net,
        build_optimizer(cfg, net, data),
        instantiate(cfg.lr_scheduler),
        rates=build_rates(cfg, net),
        seed=cfg.seed,
        keyed=cfg.keyed,
    )
    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    trainer = instantiate(
        cfg.trainer,
        logger=loggers,
        callbacks=[Resume(folder.path), *callbacks],
        plugins=[AtomicCheckpointIO(), processes.environment()],
        default_root_dir=cfg.run.dir,
        enable_progress_bar=_is_alone(cfg) and sys.stdout.isatty(),
    )
    exit_code = 1
    try:
        for logger in loggers:
            logger.log_hyperparams({**config, **provenance(), "overrides": config["run"]["overrides"]})
        trainer.fit(classifier, data, ckpt_path=checkpoint)
        best = trainer.checkpoint_callback
        trainer.test(classifier, data, ckpt_path="best" if best else None, verbose=False)
        exit_code = 0
        if _is_alone(cfg) and folder.writes:
            print("  ".join(f"{key} {value:.4f}" for key, value in classifier.tested.items()))
    finally:
        for logger in loggers:
            if hasattr(logger, "finish"):
                logger.finish(exit_code)
    return float(classifier.last_val_loss if best is None or best.best_model_score is None else best.best_model_score)


def _tell_sites(net: "nn.Module", table: bool) -> None:
    """Where dropout is in a single run; in a sweep, too, what dropout there is that no strategy reaches."""
    from dropout_lab.dropout.placement import site_table
    from dropout_lab.dropout.unreached import unreached

    if table:
        print(f"{site_table(net)}\n", file=sys.stderr)
    for line in unreached(net):
        if line not in _told:
            _told.add(line)
            log.warning("not reached by any strategy, nor by keyed masks: %s", line)


def describe(cfg: DictConfig, hydra_cfg: Any) -> None:
    """Fill in ``run``: where the job lies, what it is called, how it came about."""
    directory = Path(hydra_cfg.runtime.output_dir)
    cfg.run.config_hash = fingerprint(cfg)
    cfg.run.overrides = [str(override) for override in hydra_cfg.overrides.task]
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    group = label(cfg, hydra_cfg)
    name = f"{group} seed={cfg.seed}"
    cfg.run.dir = str(directory)
    cfg.run.root = str(Path(hydra_cfg.sweep.dir).absolute()) if sweep else str(directory)
    cfg.run.name = name[:128]
    cfg.run.group = f"{group[:110]} {fingerprint(cfg, without=['seed'])[:8]}"
    slug = "".join(c if c.isalnum() else "-" for c in name)[:48]
    cfg.run.id = f"{slug}-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"


def _hydra(arguments: Sequence[str]) -> None:
    program, before = sys.argv[0], sys.argv
    silent = ["hydra.output_subdir=null", "hydra/job_logging=none"] if processes.rank() else []
    sys.argv = [program, *arguments, *silent]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="train")(run)()
    finally:
        sys.argv = before


def _only_asks(arguments: Sequence[str]) -> bool:
    """Whether Hydra alone answers: --help, --cfg job, --info, --shell-completion, ..."""
    return any(a.startswith("-") and a not in ("-m", "--multirun", "-r", "--run") for a in arguments)


def _is_alone(cfg: DictConfig) -> bool:
    """Whether a job is no part of a sweep, so that it may talk."""
    return bool(cfg.run.root == cfg.run.dir)


def _names(job_plan: Plan, skip: Sequence[int]) -> dict[Path, str]:
    """The run folders that a command line will leave, as far as that is known, and what to call their jobs."""
    if not job_plan.multirun:
        return {job_plan.folder: "run"}
    if job_plan.jobs:
        names = [f"{label(job, job.hydra)} seed={job.seed}" for job in job_plan.jobs]
        names = [name for number, name in enumerate(names) if number not in skip]
    else:
        names = [f"trial {number}" for number in range(job_plan.known[0].hydra.sweeper.get("n_trials", 0))]
    return {job_plan.folder / str(number): name for number, name in enumerate(names)}


def _sum_up(job_plan: Plan, expected: Collection[Path]) -> int:
    """Print the table of the jobs that did not end well; the exit code."""
    warn_of_losses(job_plan.folder)
    folders = set(expected)
    if job_plan.multirun and job_plan.folder.is_dir():
        folders |= {path for path in job_plan.folder.iterdir() if path.name.isdigit()}
    statuses = {folder: read_status(folder) for folder in sorted(folders, key=lambda path: (len(path.name), path.name))}
    failed = {folder: status for folder, status in statuses.items() if status["status"] != "ok"}
    if not failed:
        print(f"run folder{'s are in' if job_plan.multirun else ':'} {job_plan.folder}", file=sys.stderr)
        return 0
    print(f"\n{len(failed)} of {len(folders)} jobs did not end well:", file=sys.stderr)
    for folder, status in failed.items():
        print(f"  {status['status']}  {folder}  {status.get('error') or ''}", file=sys.stderr)
    print("tracebacks are in their status.json; HYDRA_FULL_ERROR=1 prints them", file=sys.stderr)
    return 1


def quieten_lightning() -> None:
    """Leave out Lightning's advice that does not apply here, and its lists of devices."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are cut from memory
        ".*smaller than the logging interval.*",  # the rest of an epoch is logged at its end
        ".*exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 with torch 2.15
        ".*`srun` command is available.*",
        ".*sync_dist=True.*",  # what is logged has been summed over processes
        ".*multiple `ModelCheckpoint` callbacks.*",  # the first holds the best
    ):
        warnings.filterwarnings("ignore", message)


def _close_wandb() -> None:
    """Write W&B's buffers: its own finish() returns before the files are complete."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


if __name__ == "__main__":
    from dropout_lab import train as importable  # what is pickled for other processes has to be found there

    importable.main()

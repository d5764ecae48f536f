"""Train one run, or with -m many: `python -m dropout_lab.train [key=value ...]`, see conf/.

Top to bottom: the command line is planned and checked, Hydra starts the jobs, each job trains and tests in a folder
of its own, and failures are summed up. Torch is imported inside the job, so that a typo is answered at once.
"""

import hashlib
import logging
import sys
import time
import warnings
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dropout_lab import processes
from dropout_lab.config import (
    CONF,
    VERSION_BASE,
    Plan,
    fingerprints,
    label,
    one_store,
    only_asks,
    options_last,
    plan,
    resolved,
)
from dropout_lab.errors import UserError, full_errors, one_line_errors
from dropout_lab.offline import warn_of_losses
from dropout_lab.preflight import outline, refusals
from dropout_lab.progress import SweepProgress
from dropout_lab.resume import check_folder, is_done, resumed_by_name, start_point
from dropout_lab.run_folder import RunFolder, check_place, provenance, read_status, root_cause
from dropout_lab.tree import tree
from dropout_lab.watch import watching

if TYPE_CHECKING:
    from torch import nn

    from dropout_lab.classifier import Classifier
    from dropout_lab.data import ImageData

log = logging.getLogger(__name__)

_told: set[str] = set()  # warnings of this process, so that a sweep gives each once
_progress: SweepProgress | None = None  # of the sweep that runs in this process


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 when a job failed, 2 when the command line is wrong, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        if only_asks(arguments):
            with one_store():
                _hydra([word for word in arguments if word not in ("-m", "--multirun")])
            return
        job_plan = plan(arguments)
        check_plan(job_plan)
        for number, reason in refusals(job_plan.known).items():
            which = f"job {number} ({label(job_plan.known[number], job_plan.known[number].hydra)}): "
            raise UserError((which if job_plan.multirun else "") + reason)
        sys.exit(execute(job_plan))


def check_plan(job_plan: Plan) -> None:
    """Refuse folders that hold something else or cannot be written, devices that are not there, and broken plugins.

    Raises:
        UserError: the first thing that is in the way.
    """
    group = processes.together()
    if group > 1 and (job_plan.multirun or not any("hydra.run.dir=" in word for word in job_plan.arguments)):
        raise UserError(f"{group} processes were started together: they train one run, in a hydra.run.dir you name")
    check_place(job_plan.folder)
    if job_plan.multirun:
        _try_plugins(job_plan.known[0].hydra)
    for number, job in enumerate(job_plan.known):
        folder = job_plan.folder / str(number) if job_plan.multirun else job_plan.folder
        if job_plan.jobs:
            check_folder(folder, fingerprints(job).run, job.resume)
        count = max(processes.planned(job), group)
        if job.data.batch_size % count:
            raise UserError(
                f"data.batch_size={job.data.batch_size} is the batch over all devices and must be divisible by their "
                f"number, {count}"
            )
        if job.data.get("mixup") and job.data.batch_size % (2 * count):
            raise UserError(
                f"data.mixup={job.data.mixup} mixes pairs of a device's images: data.batch_size={job.data.batch_size} "
                f"must be divisible by twice the number of devices, {2 * count}"
            )


def _try_plugins(node: DictConfig) -> None:
    """Make what Hydra will make to run the sweep: it would say later, and in many lines, why it can't."""
    for part in ("sweeper", "launcher"):
        try:
            Plugins.instance()._instantiate(node[part])
        except Exception as error:
            name = node.runtime.choices[f"hydra/{part}"]
            raise UserError(f"hydra/{part}={name}: it can't be made: {root_cause(error)}") from error


def execute(job_plan: Plan) -> int:
    """Run the jobs of a plan and sum up what failed.

    Returns:
        the exit code: 0, 1 or 130.
    """
    global _progress
    names = _names(job_plan)
    watch: AbstractContextManager[None] = nullcontext()
    if job_plan.multirun:
        print(outline(job_plan), file=sys.stderr)
        progress = SweepProgress(len(names))
        if job_plan.elsewhere:
            watch = watching(progress, names)
        _progress = progress
    broken = False
    try:
        with watch:
            _hydra(job_plan.hydra_arguments)
    except SystemExit as end:  # Hydra has said why
        broken = end.code != 0
    except KeyboardInterrupt:
        print(f"\ninterrupted; what was done is in {job_plan.folder}", file=sys.stderr)
        return 130
    finally:
        if _progress is not None:
            _progress.close()
            _progress = None
        close_wandb()
        _close_logs(job_plan.folder)
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
        if cfg.resume != "never" and is_done(folder.path, folder.config_hash):
            log.warning("%s is done already, with this configuration and this code", folder.path)
            return float(read_status(folder.path)["objective"])
        checkpoint = start_point(folder.path, folder.config_hash, cfg.resume, folder.writes)
        if checkpoint is not None:  # at W&B, too, it stays the run that it was
            cfg.run.id = OmegaConf.load(folder.path / "config.yaml").run.id
        with folder.recording(), processes.failing_as_one(folder.path), processes.leaving_nothing():
            if (count := processes.needed(cfg)) > 1:
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
            close_wandb()


def train(cfg: DictConfig, folder: RunFolder, checkpoint: Path | None = None) -> float:
    """Build, fit, and test the best checkpoint.

    Args:
        cfg: the job's configuration, ``run`` filled in.
        folder: its folder.
        checkpoint: go on from here; None: from the beginning.

    Returns:
        the best value of what the checkpoints monitor; the last validation loss where they monitor nothing.
    """
    from lightning.pytorch.callbacks import ProgressBar

    from dropout_lab.build import instantiate
    from dropout_lab.checkpoints import AtomicCheckpointIO, Resume
    from dropout_lab.sigterm import EndAtOnce
    from dropout_lab.sync_batchnorm import SyncBatchNorm

    quieten_lightning()
    set_threads(cfg.threads)
    folder.write_config(resolved(cfg))
    classifier, data, layers = assemble(cfg)
    config = {**resolved(cfg), "layers": layers}
    folder.write_config(config)
    if folder.writes:
        if _is_alone(cfg):
            print(f"{tree(config)}\n", file=sys.stderr)
        _tell_sites(classifier.net, table=_is_alone(cfg))
    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    watched = _is_alone(cfg) and sys.stdout.isatty()
    if not watched:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    if processes.together() > 1:
        callbacks.append(EndAtOnce())
    plugins: list[Any] = [AtomicCheckpointIO(), processes.environment()]
    if cfg.trainer.sync_batchnorm:
        plugins.append(SyncBatchNorm())
    trainer = instantiate(
        cfg.trainer,
        logger=loggers,
        callbacks=[Resume(folder.path), *callbacks],
        plugins=plugins,
        default_root_dir=cfg.run.dir,
        enable_progress_bar=watched,
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


def assemble(cfg: DictConfig) -> "tuple[Classifier, ImageData, dict[str, str]]":
    """Everything that is trained, the random numbers of its initial weights drawn from the run's seed.

    Returns:
        the classifier, its data, and layer name -> module path for every layer whose numbers can be logged.
    """
    import lightning

    from dropout_lab.build import build_data, build_network, build_optimizer, build_rates, instantiate
    from dropout_lab.classifier import Classifier

    lightning.seed_everything(cfg.seed, verbose=False)
    data = build_data(cfg)
    net, layers = build_network(cfg, data)
    if cfg.compile:
        net.compile()
    classifier = Classifier(
        net,
        build_optimizer(cfg, net, data),
        instantiate(cfg.lr_scheduler),
        rates=build_rates(cfg, net),
        seed=cfg.seed,
        keyed=cfg.keyed,
        loss=instantiate(cfg.loss),
    )
    return classifier, data, layers


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
    """Fill in ``run``: where the job lies, what it is called, how it came about.

    A run that is resumed by its folder stays the run that it was, also if it was a job of a sweep. One that starts
    anew where another was has another id, unless it is the same over again: else W&B would draw both as one curve.
    """
    directory = Path(hydra_cfg.runtime.output_dir)
    prints = fingerprints(cfg)
    cfg.run.config_hash = prints.run
    cfg.run.overrides = [str(override) for override in hydra_cfg.overrides.task]
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    group = label(cfg, hydra_cfg)[:110]
    cfg.run.dir = str(directory)
    cfg.run.root = str(Path(hydra_cfg.sweep.dir).absolute()) if sweep else str(directory)
    cfg.run.name = f"{group} seed={cfg.seed}"
    cfg.run.group = f"{group} {prints.group[:8]}"
    slug = "".join(c if c.isalnum() else "-" for c in group)[:40]
    anew = time.time_ns() if cfg.resume == "never" else ""
    identity = f"{directory} {prints.run} {provenance()['code_hash']} {anew}"
    cfg.run.id = f"{slug}-seed-{cfg.seed}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    if resumed_by_name(cfg.resume):
        before = OmegaConf.load(directory / "config.yaml").run
        cfg.run.update({key: before[key] for key in ("root", "name", "group")})


def _hydra(arguments: Sequence[str]) -> None:
    program, before = sys.argv[0], sys.argv
    logging.raiseExceptions = False  # Hydra's log on a full disk would be a traceback a line
    silent = ["hydra.output_subdir=null", "hydra/job_logging=none"] if processes.rank() else []
    sys.argv = [program, *options_last([*arguments, *silent])]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="train")(run)()
    finally:
        sys.argv = before


def _close_logs(folder: Path) -> None:
    """Hydra leaves those of the last job open: what this process logs later would go into them."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(folder.absolute()):
            root.removeHandler(handler)
            handler.close()


def _is_alone(cfg: DictConfig) -> bool:
    """Whether a job does not run as part of a sweep, so that it may talk."""
    return bool(cfg.run.root == cfg.run.dir or resumed_by_name(cfg.resume))


def _names(job_plan: Plan) -> dict[Path, str]:
    """The run folders that a command line will leave, as far as that is known, and what to call their jobs."""
    if not job_plan.multirun:
        return {job_plan.folder: "run"}
    if job_plan.jobs:
        names = [f"{label(job, job.hydra)} seed={job.seed}" for job in job_plan.jobs]
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
        why = "its process was killed" if status["status"] == "running" else status.get("error")
        print(f"  {status['status']}  {folder}  {why or ''}", file=sys.stderr)
    print("tracebacks are in their status.json; HYDRA_FULL_ERROR=1 prints them", file=sys.stderr)
    return 1


def quieten_lightning() -> None:
    """Leave out Lightning's advice that does not apply here, and its lists of devices."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
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


def set_threads(count: int | None) -> None:
    """CPU threads inside an operation; None: as many as torch has chosen, whatever an earlier job had."""
    import torch

    chosen = _chosen_threads()
    torch.set_num_threads(chosen if count is None else count)


@cache
def _chosen_threads() -> int:
    import torch

    return torch.get_num_threads()


def close_wandb() -> None:
    """Write W&B's buffers: its own finish() returns before the files are complete."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


if __name__ == "__main__":
    from dropout_lab import train as importable  # what is pickled for other processes has to be found there

    importable.main()

"""Starting from the weights of another run, ``start_from=RUN``: which they are, and how a new network gets them.

Only what training begins with is another then: the new run has its own configuration, optimizer and schedules.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dropout_lab.cli import UserError, nearest
from dropout_lab.runs.digests import digest
from dropout_lab.runs.folder import CONFIG, checkpoint, checkpoints, read_config

if TYPE_CHECKING:
    from torch import Tensor


# Settings that name a run whose weights the training depends on: the weights count, and not where they lie.
READ = ("start_from", "module.teacher")


def source(value: str, key: str = "start_from") -> Path:
    """The checkpoint file that a value of ``start_from`` or of another key means: a run's folder stands for its best.

    Raises:
        UserError: there is no such run, or it has no such checkpoint.
    """
    named = Path(str(value))  # a folder that is called 0 is a number to Hydra
    folder = named.parent.parent if named.suffix == ".ckpt" else named
    file = checkpoint(folder, "best") if folder is named else named
    if not (folder / CONFIG).is_file():
        kind = f"is no run, it has no {CONFIG}" if folder.is_dir() else "does not exist"
        around = folder if folder.is_dir() else folder.parent
        runs = sorted(path.parent.name for path in around.glob(f"*/{CONFIG}"))
        there = f"in {around} there is {', '.join(runs[:20])}" if runs else "give the folder of a run"
        raise UserError(f"{key}={value}: {folder} {kind}; {nearest(folder.name, runs)}{there}")
    if not file.is_file():
        there = ", ".join(f"{key}={path}" for path in checkpoints(folder)) or "no checkpoint at all"
        raise UserError(f"{key}={value}: {file} does not exist; the run has {there}")
    return file


def content(value: str, key: str) -> str:
    """A fingerprint of the checkpoint that a value of a key of ``READ`` means.

    Raises:
        UserError: as :func:`source`.
    """
    return digest(source(value, key))[:16]


def start(module: Any, cfg: DictConfig, data: Any) -> None:
    """Give a module's network the weights of the run that its configuration starts from, before it is trained.

    In eval mode it computes what that run's network does, whatever dropout each of them has: where a classic layer
    multiplies by 1-p, the weights are rescaled. Those that ``optimizer.match`` will rescale become those of an inverted
    network, so that they train as such a one would that starts from the same run.

    Args:
        module: with its network on the CPU, dropout installed.
        cfg: its configuration.
        data: its data.

    Raises:
        UserError: no such run; its weights do not fit the network; no exact conversion exists.
    """
    import torch

    from dropout_lab.dropout import Dropout, transfer
    from dropout_lab.dropout.learned import own_parameters
    from dropout_lab.jobs.allowed import without_network
    from dropout_lab.jobs.build import build_network
    from dropout_lab.runs.network import read_checkpoint

    file = source(cfg.start_from)
    config = without_network(read_config(file.parent.parent), file.parent.parent / CONFIG)
    weights = read_checkpoint(file).net
    data.setup("fit")
    scalings = {layer: layer.scaling for layer in module.net.modules() if isinstance(layer, Dropout)}
    for layer in scalings:
        layer.scaling = cfg.optimizer.get("match") or layer.scaling
    try:
        with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten
            net = build_network(config, data).net
        free = {*own_parameters(net), *own_parameters(module.net)}  # a p that one of them alone learns
        _require_fitting(cfg, config, module.net.state_dict(), weights, free)
        net.load_state_dict(weights)
        transfer(net, module.net, module.inputs(data.example(2)))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"start_from={cfg.start_from}: its weights can't be those of this network: {reason}") from error
    for layer, scaling in scalings.items():
        layer.scaling = scaling


def _require_fitting(
    here: DictConfig,
    there: DictConfig,
    own: Mapping[str, "Tensor"],
    given: Mapping[str, "Tensor"],
    free: Collection[str],
) -> None:
    """Refuse weights of another model, or of one with another number of outputs; some keys are free to differ."""
    for key in (key for key in (*own, *given) if key not in free):
        shapes = [str(tuple(state[key].shape)) if key in state else "missing" for state in (given, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"start_from={here.start_from}: its weights do not fit: {key} is {shapes[0]} there ({_model(there)}) "
                f"and {shapes[1]} here ({_model(here)}); it has to be the same model with as many outputs"
            )


def _model(cfg: DictConfig) -> str:
    """The model of a configuration: what builds it, and its settings."""
    settings = [f"{key}={value}" for key, value in cfg.model.items() if key != "_target_" and value is not None]
    return " ".join([str(cfg.model["_target_"]).rpartition(".")[2], *settings])

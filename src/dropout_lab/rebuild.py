"""From a run folder alone back to its network and data."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError
from torch import nn

from dropout_lab.build import build_data, build_network
from dropout_lab.data import ImageData
from dropout_lab.dropout import check_rates, rates_of
from dropout_lab.dropout.rates import SavedRate
from dropout_lab.errors import UserError
from dropout_lab.run_folder import root_cause

CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class Rebuilt:
    """What a run trained, in eval mode, and on what; the data is set up."""

    config: DictConfig
    net: nn.Module
    data: ImageData


def rebuild(folder: Path, checkpoint: str = "best") -> Rebuilt:
    """Build a run's network, with its dropout layers, and load its weights.

    Args:
        folder: the run folder.
        checkpoint: "best" (in validation) or "last".

    Raises:
        UserError: no such folder, file or checkpoint, data that is not there, or weights that do not fit the network.
    """
    config = read_config(folder)
    state, rates = read_weights(folder, checkpoint)
    try:
        data = build_data(config)
        data.setup()
        net, _ = build_network(config, data)
    except ConfigAttributeError as error:
        raise UserError(f"{folder}: its configuration is of other code, which had no {error.full_key}") from error
    except Exception as error:  # above all of data that is no longer where it was
        raise UserError(f"{folder}: what it was made of cannot be made again: {root_cause(error)}") from error
    try:
        check_rates(net, rates or rates_of(net))
        net.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: the weights of {checkpoint}.ckpt do not fit the run's model: {reason}") from error
    return Rebuilt(config, net.eval(), data)


def read_config(folder: Path) -> DictConfig:
    """The configuration that a run wrote.

    Raises:
        UserError: there is none.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        kind = "is not a run folder: it has no config.yaml" if folder.is_dir() else "does not exist"
        raise UserError(f"{folder}: {kind}; give the folder of one run, e.g. runs/2026-01-31/12-00-00-000000")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config


def read_weights(folder: Path, checkpoint: str) -> tuple[dict[str, torch.Tensor], dict[str, SavedRate]]:
    """The network's part of a run's checkpoint, on the CPU, and the rates that the weights belong to.

    Raises:
        UserError: an unknown name, or a file that is missing or cannot be read.
    """
    if checkpoint not in CHECKPOINTS:
        raise UserError(f"ckpt={checkpoint}: must be {' or '.join(CHECKPOINTS)}")
    path = folder / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.is_file():
        there = sorted(found.stem for found in path.parent.glob("*.ckpt"))
        raise UserError(f"{path} does not exist; " + (f"there is ckpt={there[0]}" if there else "the run saved none"))
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = whole["state_dict"]
    except (RuntimeError, EOFError, KeyError, ValueError, OSError, UnpicklingError) as error:
        raise UserError(f"{path} cannot be read, it may be truncated: {' '.join(str(error).split())}") from error
    return {key.removeprefix("net."): value for key, value in state.items()}, whole.get("dropout_rates", {})

"""The W&B logger: it never prompts, never blocks for long and never stops a run; wandb is imported where it is used."""

import logging
import os
from argparse import Namespace
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from dropout_lab.jobs.build_errors import arguments_of, unknown_key
from dropout_lab.runs.wandb_files import mend
from dropout_lab.runs.wandb_settings import accepted, place_for_logs

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")


class Wandb(WandbLogger):
    """W&B that never prompts, never blocks for long and never stops the run: offline where online cannot be had.

    Args:
        mode: "auto" (``WANDB_MODE``, else online where a key is stored, else offline), "online", "offline" or
            "disabled". Each run has its own mode; nothing is put into the environment of later ones.
        save_dir: its files go to ``save_dir/wandb``.
        init_timeout, finish_timeout: seconds to wait for the server.
        settings: project, entity, name, group, ... as for ``wandb.init``.

    Raises:
        ValueError: a mode, a setting, or a variable of W&B's that W&B would refuse.
    """

    def __init__(
        self,
        mode: str = "auto",
        save_dir: str = ".",
        init_timeout: float = 20,
        finish_timeout: float = 120,
        **settings: Any,
    ) -> None:
        import wandb

        known = arguments_of(WandbLogger) | arguments_of(wandb.sdk.init)  # which hears of the others only as it begins
        for key in settings.keys() - known.keys():
            raise ValueError(f"logger.wandb.{unknown_key(key, 'wandb.init', known)}")
        super().__init__(
            save_dir=save_dir,
            mode=_mode(mode),  # not WandbLogger(offline=True): it sets WANDB_MODE for good
            reinit="create_new",  # one run for each logger, also in a sweep within one process
            settings=wandb.Settings(
                init_timeout=init_timeout,
                finish_timeout=finish_timeout,
                finish_timeout_raises=True,
                silent=True,
                console="off",
            ),
            **accepted(settings),
        )
        self._wandb_init.pop("anonymous", None)  # deprecated, and Lightning always passes it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, made at the first call."""
        if self._experiment is None:
            Path(str(self._save_dir)).mkdir(parents=True, exist_ok=True)  # W&B would take the folder of temporary files
            if self._wandb_init["id"]:
                mend(str(self._save_dir), self._wandb_init["id"])
            with place_for_logs():
                return self._begun()
        return self._experiment

    def _begun(self) -> Any:
        """The W&B run, online where that was asked for and can be had."""
        import wandb

        asked = self._wandb_init
        if asked["mode"] in ("auto", "online"):  # wandb.init would prompt on a terminal without a key
            asked["mode"] = "online" if _online(asked["mode"]) else "offline"
        try:
            return super().experiment
        except wandb.errors.Error as error:  # the server is there, but this run may not go to it
            if self.offline:
                raise
            to = " ".join(f"logger.wandb.{key}={asked[key]}" for key in ("entity", "project") if asked.get(key))
            _warn_offline(f"with {to}: {_first_line(error)}")
            asked["mode"] = "offline"
            if asked["id"]:  # W&B takes the failed run for one that still has it
                asked["id"] += "-offline"
            return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The configuration; and in the summary, where tables of runs are made, the name of the group without hash.

        A long text, such as a large diff, is left out: W&B would warn of its 100 kB again and again.
        """
        given = vars(params) if isinstance(params, Namespace) else params
        long = [key for key, value in given.items() if isinstance(value, str) and len(value) > 50_000]
        super().log_hyperparams({key: value for key, value in given.items() if key not in long})
        if group := self._wandb_init.get("group"):
            self.experiment.summary["final/strategy"] = group.rpartition(" ")[0] or group

    @property
    def offline(self) -> bool:
        """Whether the run is kept on this machine; known once it has begun."""
        return bool(self._wandb_init["mode"] == "offline")

    def finish(self, exit_code: int) -> None:
        """End the run; a failed job's is marked as failed. What the server does not take in time is on this machine."""
        global _refusal
        if self._experiment is None:
            return
        try:
            with redirect_stderr(StringIO()):  # of a time-out it would tell in two lines, neither of which says where
                self._experiment.finish(exit_code=exit_code)
        except TimeoutError:
            _refusal = "it did not take all of an earlier run"
            folder = self._experiment.settings.sync_dir
            log.warning("W&B's server did not take all of the run in time; upload it later: wandb sync %s", folder)


_refusal: str | None = None  # why the server refused this process: later runs of a sweep don't wait for it again


def _mode(asked: str) -> str:
    """The mode that was asked for, here or in the environment."""
    variable = os.environ.get("WANDB_MODE", "")
    of_variable = asked == "auto" and variable
    key, mode, known = ("WANDB_MODE", variable, MODES[1:]) if of_variable else ("logger.wandb.mode", asked, MODES)
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)  # former names, which wandb still takes
    if mode not in known:
        raise ValueError(f"{key}={mode}: must be {', '.join(known[:-1])} or {known[-1]}")
    return mode


def _online(mode: str) -> bool:
    """Whether there is a key and the server takes it. Warns where there is a key, or "online" was asked for."""
    global _refusal
    if _refusal is not None:
        return False
    import wandb

    try:
        with redirect_stderr(StringIO()):  # it would tell each job of a sweep that there is a key
            there = wandb.login(prompt=False, verify=True)
    except wandb.errors.Error as error:
        _refusal = _first_line(error)
        _warn_offline(_refusal)
        return False
    if not there and mode == "online":
        _warn_offline("there is no API key: `wandb login` stores one")
    return there


def _warn_offline(reason: str) -> None:
    log.warning("W&B cannot go online (%s); logging offline, upload later with `wandb sync`", reason)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

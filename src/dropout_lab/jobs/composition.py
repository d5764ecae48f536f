"""Composition of configurations: files are read and merged once for all jobs that choose the same ones.

Hydra composes a configuration from files, which takes 0.1 s, and then sets single values in it, which takes none. What
comes out here is what Hydra would compose from the same words: `tests/jobs/test_composition.py` tries many sweeps.
"""

import copy
import pickle
import warnings
from collections.abc import Sequence
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dropout_lab.cli import UserError, root_cause
from dropout_lab.jobs.conf import CONF
from dropout_lab.jobs.overrides import taken
from dropout_lab.jobs.unread import Merged, require_read, setter

ROOT = "train"  # conf/train.yaml
SET_LATER = (
    "hydra.sweeper.",
    "hydra.launcher.",
    "hydra.sweep.",
    "hydra.run.",
    "hydra.mode",
)  # which Hydra looks at last


class Composer:
    """Composes the configurations of a command line; Hydra has to be initialized.

    Attributes:
        about: its words about Hydra itself, which all jobs have.
    """

    def __init__(self, about: Sequence[str]) -> None:
        self.about = list(about)
        self._loader = cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())
        self._repository = _repository(self._loader, self.about)
        self._parsed: dict[str, Override] = {}
        self._choosing: dict[str, bool] = {}
        # Pickled: a copy takes a fifth of the time so.
        self._compositions: dict[tuple[Any, ...], bytes] = {}
        self._own: dict[tuple[str, ...], bytes] = {}

    def settle(self, words: Sequence[str]) -> None:
        """Add words about Hydra itself that set values which are known by now, instead of those that have set them."""
        keys = [self.parsed(word).key_or_group for word in words]
        self.about = [word for word in self.about if self.parsed(word).key_or_group not in keys] + list(words)
        for choice, composition in self._compositions.items():
            config = pickle.loads(composition)
            self._set_all(config, words)
            config.hydra.overrides.hydra = self.about
            self._compositions[choice] = pickle.dumps(config)

    def parsed(self, word: str) -> Override:
        """A word as Hydra understands it."""
        if word not in self._parsed:
            (self._parsed[word],) = OverridesParser.create(self._loader).parse_overrides([word])
        return self._parsed[word]

    def chooses_files(self, word: str) -> bool:
        """Whether a word says of which files a configuration is made, or how, and does not set a value in it.

        Raises:
            UserError: it names no file, but would have to.
        """
        if word not in self._choosing:
            self._choosing[word] = self._chooses_files(word)
        return self._choosing[word]

    def _chooses_files(self, word: str) -> bool:
        override = self.parsed(word)
        if override.is_hydra_override():
            return not override.key_or_group.startswith(SET_LATER)
        group = override.key_or_group
        if not self._repository.group_exists(group):
            return False
        if override.is_sweep_override() or override.is_delete() or isinstance(override.value(), str | list):
            return True
        if isinstance(override.value(), dict):
            return False
        options = ", ".join(self._repository.get_group_options(group))
        raise UserError(f"{word}: no such option; allowed: {options}")

    def files(self, words: Sequence[str]) -> tuple[str, ...]:
        """Words of a command line that choose files, out of all its words."""
        return tuple(word for word in words if self.chooses_files(word))

    def config(self, words: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """The configuration of a job with these words, its node ``hydra`` included.

        Args:
            words: none of them is about Hydra itself.
            mode: MULTIRUN for that of a sweep as a whole, in which a choice may be missing that its jobs make.
        """
        files = self.files(words)
        if (mode, *files) not in self._compositions:
            composed = self._compose(files, mode)
            composed.hydra.overrides.hydra = self._set_all(composed, self.about)
            self._compositions[mode, *files] = pickle.dumps(composed)
        config: DictConfig = pickle.loads(self._compositions[mode, *files])
        config.hydra.overrides.task = task = self._set_all(config, words)
        form = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            [self.parsed(word) for word in task], form.exclude_keys, form.item_sep, form.kv_sep
        )
        return config

    def own(self, words: Sequence[str]) -> tuple[DictConfig, list[str]]:
        """The configuration of a job without its node ``hydra``, in half the time, and the words as Hydra takes them.

        They have a + where a key was not there.
        """
        files = self.files(words)
        if files not in self._own:
            composed = self.config(files)
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]
            OmegaConf.set_struct(composed, True)
            self._own[files] = pickle.dumps(composed)
        config: DictConfig = pickle.loads(self._own[files])
        return config, self._set_all(config, words)

    def require_read(self, config: DictConfig, files: Sequence[str], words: Sequence[str]) -> None:
        """Refuse a file with settings that nothing reads.

        Args:
            config: as it is composed of the files.
            files: words that choose them.
            words: of all jobs that are made of them.
        """
        main = cast(ConfigResult, self._repository.load_config(ROOT))
        require_read(config, [*map(self.parsed, words)], main, self._merged(files))

    def where_set(self, key: str | None, words: Sequence[str]) -> str:
        """In which file, and line of it, a key gets its value, in brackets; empty where it is a word that gives it."""
        place = (key or "").partition("[")[0]  # of a list, all of it
        if not place or any(f"{place}.".startswith(f"{self.parsed(word).key_or_group}.") for word in words):
            return ""
        found = setter(self._merged(self.files(words)), place)
        return f" ({found.place})" if found else ""

    def _merged(self, files: Sequence[str]) -> Merged:
        """The files that are merged, in their order."""
        words = [*self.files(self.about), *files]
        for each in self._loader.compute_defaults_list(ROOT, words, RunMode.MULTIRUN).defaults:
            if each.config_path and (read := self._repository.load_config(each.config_path)):
                yield each, read

    def _compose(self, files: Sequence[str], mode: RunMode) -> DictConfig:
        """What Hydra composes of files."""
        words = [*self.files(self.about), *files]
        try:
            return self._loader.load_configuration(ROOT, words, mode, from_shell=False)
        except (HydraException, OmegaConfBaseException, UserError):
            raise
        except RecursionError as error:
            raise UserError(f"{' '.join(files)}: a file there has itself in its defaults list") from error
        except Exception as error:  # of values that Hydra does not expect
            raise UserError(f"{' '.join(files)}: Hydra can't compose that: {root_cause(error)}") from error

    def _set_all(self, config: DictConfig, words: Sequence[str]) -> list[str]:
        """Set the values that words set in what others have chosen; the words with which Hydra does it."""
        return [word if self.chooses_files(word) else self._set(config, self.parsed(word)) for word in words]

    def _set(self, config: DictConfig, override: Override) -> str:
        """Set the value of an override that has one; the word with which Hydra does it.

        Of a key that is an argument of its node's target nobody has to know whether conf/ happens to list it: the
        ``+`` of Hydra's that says so may be there or not.
        """
        if override.is_sweep_override():
            return override.input_line or ""
        parent, _, name = override.key_or_group.rpartition(".")
        node = OmegaConf.select(config, parent, throw_on_resolution_failure=False) if parent else None
        if isinstance(node, DictConfig) and name in taken(node, parent):
            adds, line = name not in node or isinstance(override.value(), dict), override.input_line or ""
            if override.is_add() and not adds:
                override = self.parsed(line.removeprefix("+"))
            elif override.type == OverrideType.CHANGE and adds:
                override = self.parsed(f"+{line}")
        ConfigLoaderImpl._apply_overrides_to_config([override], config)
        return override.input_line or ""

    def number(self, word: str) -> int | float | None:
        """The number that a word sets a value to; None where it does something else."""
        override = self.parsed(word)
        value = None if override.is_sweep_override() or override.type != OverrideType.CHANGE else override.value()
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class PlannedLoader(ConfigLoaderImpl):
    """Hydra's loader of a command line that was planned: what was composed and checked is what runs.

    Args:
        base: the configuration of the run, or of the sweep as a whole.
        planned: the words of each job of the sweep; None: a sweeper finds them as it goes.
        composer: composes their configurations.
    """

    def __init__(self, base: DictConfig, planned: Sequence[Sequence[str]] | None, composer: Composer) -> None:
        super().__init__(create_config_search_path(str(CONF)))
        self._base, self.planned, self._composer = base, planned and [list(words) for words in planned], composer

    def load_configuration(self, *arguments: Any, **options: Any) -> DictConfig:
        """The configuration of the run, or of the sweep as a whole."""
        return copy.deepcopy(self._base)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of a job of the sweep."""
        config = self._composer.config(sweep_overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)  # one time stamp for all
        return config


def _repository(loader: ConfigLoaderImpl, about: Sequence[str]) -> CachingConfigRepository:
    """The folders of files that there are with these words about Hydra itself.

    Raises:
        UserError: one that is searched is not there.
    """
    searched = [word for word in about if word.lstrip("+").startswith("hydra.searchpath=")]
    if len(searched) > 1:
        raise UserError(f"{searched[1]}: hydra.searchpath is given twice; give it all folders, separated by commas")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is refused
            repository: CachingConfigRepository = loader._parse_overrides_and_create_caching_repo(ROOT, list(about))[1]
        absent = [source.path for source in repository.get_sources() if not source.available()]
    except (ValueError, ImportError) as error:
        raise UserError(f"{''.join(searched)}: {root_cause(error)}") from error
    if absent:
        raise UserError(f"{''.join(searched)}: there is no folder {absent[0]}")
    return repository

"""What is planned is what Hydra composes from the same words, for sweeps of many kinds; else it is refused, or more."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dropout_lab.cli import UserError
from dropout_lab.jobs.composition import Composer
from dropout_lab.jobs.conf import CONF, VERSION_BASE
from dropout_lab.jobs.job import resolved, written
from dropout_lab.jobs.overrides import FROM_CODE
from dropout_lab.jobs.plan import plan
from dropout_lab.jobs.signatures import arguments
from dropout_lab.runs.identity import fingerprints

FOLDER = "hydra.sweep.dir='/sweep'"
SAME = [
    "dropout=inverted,none seed=0,1",
    "dropout.p=0.1,0.5 model=mlp",
    "model=mlp,mlp",
    "optimizer.lr=0.1,0.10",
    "dropout=glob(*)",
    "placement=glob([c*,i*],exclude=con*)",
    "seed=range(3)",
    "seed=range(0,5,step=2) dropout.p=choice(0.1,0.2)",
    "dropout.p=sort(0.3,0.1) optimizer.lr=1e-3,0.01",
    "optimizer=sgd,adam optimizer.weight_decay=0,0.1",
    "+trainer.limit_train_batches=2,0.5",
    "++trainer.profiler=simple,null",
    "++trainer.max_epochs=2,3 lr_scheduler.T_max='${trainer.max_epochs}'",
    "~trainer.precision seed=0,1",
    "~callbacks.activation_stats dropout=inverted,none",
    "~loss.label_smoothing=0.0 seed=0,1",
    "dropout.p=0.1,0.2 placement.p='${dropout.p}' placement.rate=linear,constant",
    "optimizer.lr=0.1,0.2 +optimizer.dampening='${optimizer.lr}'",
    "data.split_seed='${seed}' seed=0,1",
    "callbacks=[default],[default,early_stopping]",
    "logger=csv,none",
    "tags=[a],[b,c]",
    "notes='a=b, c','d'",
    "+dropout.extra={a:1},{a:2}",
    "data=digits,synthetic data.train_size=64",
    "debug=fast,cpu dropout=inverted",
    "experiment=unscaled seed=0",
    "experiment=depth seed=0 dropout.p=0.2",
    "sweep=compare seed=0 model=mlp",
    "sweep=compare seed=0 dropout=inverted,none",
    "+hydra.sweeper.arms.a='dropout=none' +hydra.sweeper.arms.b='dropout=inverted dropout.p=0.2'",
    "+hydra.sweeper.params.seed='0,1'",
    "+hydra.sweeper.max_batch_size=2 seed=range(3)",
    "hydra.job.env_copy=[PATH] hydra.verbose=true seed=0,1",
    "hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=0,1",
    "+hydra.job.env_set.A=b hydra.output_subdir=null seed=0,1",
    "hydra.searchpath=[file://SEARCHED] model=tiny,mlp",
    "hydra.searchpath=[file://SEARCHED] +extra=one,two",
    "+model@other=mlp,cnn",
]
MORE = {  # Hydra refuses them
    "dropout_schedule=early,late dropout_schedule.cutoff=0.3": {"dropout_schedule.cutoff": 0.3},
    "trainer.check_val_every_n_epoch=1 seed=0,1": {"trainer.check_val_every_n_epoch": 1},
    "+trainer.max_epochs=2,3": {"trainer.deterministic": False},
    "callbacks=[default,early_stopping] callbacks.early_stopping.min_delta=0.1 seed=0,1": {
        "callbacks.early_stopping.min_delta": 0.1
    },
    "hydra.sweeper.max_batch_size=2 seed=0,1": {"hydra.sweeper.max_batch_size": 2},
    "hydra.sweeper.params={seed:'0,1'}": {"hydra.sweeper.params": {"seed": "0,1"}},
    "~lr_scheduler.interval lr_scheduler.interval=step seed=0,1": {"lr_scheduler.interval": "step"},
    "+optimizer.lr=0.3 optimizer.nesterov=true seed=0,1": {"optimizer.lr": 0.3, "optimizer.nesterov": True},
}
REFUSED = {
    "dropout_schedule=early,constant dropout_schedule.cutoff=0.3": "there is no key 'dropout_schedule.cutoff'",
    "model=cnn,mlp model.hidden=3": "there is no key 'model.hidden'",
    "dropout=inverted,classik": "dropout=classik: no such option",
    "debug=null,fast": "debug=null: no such option; allowed: cpu, fast, overfit, profiler",
    "seed=interval(0,1)": "an interval is for a search",
    "callbacks=[default],[default,early_stopping] callbacks.early_stopping.patience=3": "no such callback; add",
    "hydra.sweep.subdir=a seed=0,1": r"hydra\.sweep\.subdir: run folders have the number of their job",
    "dropout=glob(zz*)": "this sweep has no jobs",
    "experiment=rescaling,unscaled": r"experiment=rescaling: sets hydra\.sweeper\..* start a sweep for each",
    "experiment=rate,null": r"experiment=rate: sets hydra\.sweeper\.",
    "sweep=compare,null": r"sweep=compare: sets hydra\.sweeper\.",
    "hydra.searchpath=[file://SEARCHED] model=tiny,beside": r"model=beside: sets hydra\.launcher\.",
    "hydra/launcher=basic,joblib seed=0,1": "is of the sweep as a whole and has one value",
    "hydra.launcher.n_jobs=1,2": "is of the sweep as a whole and has one value",
    "+hydra.sweeper.arms.a='dropout=none hydra.verbose=true'": r"hydra\.verbose=true: .* arm",
    "hydra.launcher=null seed=0,1": r"hydra\.launcher=None: choose an option, hydra/launcher=NAME",
    "~dropout_schedule seed=0,1": "dropout_schedule is missing; it is chosen by an option",
    "~callbacks seed=0,1": "callbacks is missing; it is chosen by an option",
    "callbacks.checkpoint=null seed=0,1": r"callbacks\.checkpoint=null: leave it out",
    "model=mlp +model.num_classes=3 seed=0,1": r"model\.num_classes: is not for the configuration to give",
    "trainer.callbacks=[] seed=0,1": "there is no key 'trainer.callbacks'",
    "hydra.mode=RUN seed=0,1": "hydra.mode: add -m for a sweep",
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder of configurations of somebody's own."""
    root = tmp_path_factory.mktemp("searched")
    (root / "model").mkdir()
    (root / "extra").mkdir()
    (root / "model" / "tiny.yaml").write_text("defaults: [mlp]\nwidths: [4]\n")
    (root / "model" / "beside.yaml").write_text(
        "# @package _global_\ndefaults: [override /hydra/launcher: joblib]\nmodel: {widths: [4]}\n"
    )
    for name in ("one", "two"):
        (root / "extra" / f"{name}.yaml").write_text(f"name: {name}\n")
    return root


@pytest.fixture(autouse=True)
def once_configured():
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def words(text, searched):
    """The words of a command line; the quotes are for Hydra."""
    return [*re.findall(r"(?:[^' ]|'[^']*')+", text.replace("SEARCHED", str(searched))), FOLDER]


def plainly(asked):
    """The configurations of a sweep as Hydra composes them, without any plan."""
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        about = [word for word in asked if word != FOLDER] + [FOLDER, "hydra.mode=MULTIRUN"]
        sweep = loader.load_configuration("train", about, RunMode.MULTIRUN)
        HydraConfig.instance().set_config(sweep)
        task = OmegaConf.to_container(sweep.hydra.overrides.task, resolve=False)
        jobs = instantiate(sweep.hydra.sweeper).jobs(task, loader)
        return [loader.load_sweep_config(sweep, job) for job in jobs]


def plain(config):
    return OmegaConf.to_container(config)


@pytest.mark.slow
@pytest.mark.parametrize("text", SAME)
def test_planned_configurations_are_those_that_hydra_composes(text, searched):
    asked = words(text, searched)
    ours, theirs = [job.config for job in plan(["-m", *asked]).jobs], plainly(asked)
    assert [plain(config) for config in ours] == [plain(config) for config in theirs]
    assert len(ours) > 1 or "depth" in text or "glob" in text


@pytest.mark.slow
@pytest.mark.parametrize("text", MORE)
def test_what_a_user_expects_is_planned_where_hydra_refuses_it(text, searched):
    asked = words(text, searched)
    with pytest.raises((HydraException, OmegaConfBaseException)):
        plainly(asked)
    jobs = plan(["-m", *asked]).jobs
    assert len(jobs) == 2
    for job in jobs:
        assert {key: OmegaConf.select(job.config, key) for key in MORE[text]} == MORE[text]


@pytest.mark.slow
@pytest.mark.parametrize("text", MORE)
def test_the_words_of_a_planned_job_are_valid_for_hydra(text, searched):
    """So that .hydra/overrides.yaml of each run is a command line, and launchers of others compose the same."""
    for job in plan(["-m", *words(text, searched)]).jobs:
        with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
            again = compose("train", list(job.config.hydra.overrides.task))
        config = job.config
        with open_dict(config):
            del config["hydra"]
        assert plain(config) == plain(again)


@pytest.mark.slow
@pytest.mark.parametrize("text", REFUSED)
def test_a_sweep_that_can_not_be_one_is_refused_in_one_line(text, searched):
    with pytest.raises(UserError, match=REFUSED[text]) as caught:
        plan(["-m", *words(text, searched)])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "dropout.p=0.1,0.2 ++dropout.p=0.3",
        "dropout.p=0.1,0.2 dropout={p:0.3}",
        "trainer.max_epochs=${seed} seed=1,2",
        "notes=${hydra:job.num} seed=0,1",
        "dropout=inverted,none dropout.p=0.1,0.2 optimizer.lr=0.1,0.2",
    ],
)
def test_a_job_is_known_by_the_fingerprint_of_what_runs(text, searched):
    for job in plan(["-m", *words(text, searched)]).jobs:
        assert fingerprints(job) == fingerprints(job.config)
        assert job.written == written(job.own) | {"run": dict.fromkeys(job.own.run, "")}


@pytest.mark.slow
def test_files_are_composed_once_for_all_jobs_that_choose_the_same(monkeypatch):
    composed = []
    original = ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "load_configuration",
        lambda self, *args, **given: composed.append(args) or original(self, *args, **given),
    )
    values = ["optimizer.lr=0.1,0.2", "optimizer.weight_decay=0,0.1", "seed=range(3)", "trainer.max_epochs=2,3"]
    assert len(plan(["-m", "dropout=inverted,none", *values]).jobs) == 48
    assert len(composed) == 3  # of the sweep, and for each strategy


@pytest.mark.slow
def test_what_a_resolver_says_is_each_job_s_own(monkeypatch):
    """A section of a configuration is resolved once for jobs in which it is made of the same."""
    words = ["dropout.p=0.1,0.2", "model.widths=[8],[16]", "trainer.max_epochs=2,3", "notes='${model.widths} ${seed}'"]
    for job in plan(["-m", "lr_scheduler.T_max=${trainer.max_epochs}", *words]).jobs:
        own = resolved(job.config.lr_scheduler)
        assert job.alike["lr_scheduler"] == own
        assert job.alike["notes"] == f"{list(job.config.model.widths)} 0"
        assert job.alike["trainer"]["max_epochs"] == own["T_max"]


@pytest.mark.parametrize("group", ["trainer", "callbacks"])
def test_every_argument_can_be_given_with_and_without_a_plus(group):
    """Lightning's Trainer takes 41, of which the lab gives some itself."""
    options = [path.stem for path in sorted((CONF / "callbacks").glob("*.yaml")) if path.stem != "rich_progress"]
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        composer = Composer([])
        chosen = [f"callbacks=[{','.join(options)}]"]
        config = composer.own(chosen)[0]
        nodes = {"trainer": config.trainer} if group == "trainer" else config.callbacks
        tried = 0
        for name, node in nodes.items():
            place = "trainer" if group == "trainer" else f"callbacks.{name}"
            for argument in sorted(arguments(node._target_) - {*FROM_CODE.get(place, ())}):
                for plus in ("", "+", "++"):
                    key = f"{place}.{argument}"
                    assert OmegaConf.select(composer.own([*chosen, f"{plus}{key}=7"])[0], key) == 7
                    tried += 1
    assert tried >= 3 * 37

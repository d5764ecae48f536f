"""What is wrong is said in one line, with the exit code of the contract, and leaves nothing behind."""

import importlib

import pytest

# command, its words, part of the line. DIR is a folder that does not exist, EMPTY one that holds nothing.
TABLE = [
    # unknown names: the nearest is offered
    ("train", "dropout=invertd", "did you mean 'inverted'?"),
    ("train", "model=cn", "did you mean 'cnn'?"),
    ("train", "data=digit", "did you mean 'digits'?"),
    ("train", "data=mnsit", "did you mean 'mnist'?"),
    ("train", "optimizer=smd", "did you mean 'sgd'?"),
    ("train", "trainer=dpp", "did you mean 'ddp'?"),
    ("train", "placement=convolution", "did you mean 'convolutions'?"),
    ("train", "dropout_schedule=ealry", "did you mean 'early'?"),
    ("train", "lr_scheduler=cosin", "did you mean 'cosine'?"),
    ("train", "logger=wanb", "did you mean 'wandb'?"),
    ("train", "debug=fats", "did you mean 'fast'?"),
    ("train", "experiment=nothing_like_this", "no such option"),
    ("train", "droput.p=0.5", "did you mean 'dropout.p'?"),
    ("train", "dropout.rate=0.5", "there is no key 'dropout.rate'"),
    ("train", "trainer.epochs=3", "did you mean 'trainer.max_epochs'?"),
    ("train", "sede=1", "did you mean 'seed'?"),
    ("train", "model=torchvision model.name=resnet81", "did you mean 'resnet18'?"),
    ("train", "model._target_=dropout_lab.models.CCN", "has no attribute 'CCN'"),
    ("train", "model._target_=nowhere.Model", "No module named 'nowhere'"),
    # wrong types and ranges
    ("train", "dropout.p=1.5", "a number with 0 <= p < 1"),
    ("train", "dropout.p=1", "a number with 0 <= p < 1"),
    ("train", "dropout.p=-0.5", "a number with 0 <= p < 1"),
    ("train", "dropout.p=nan", "a number with 0 <= p < 1"),
    ("train", "dropout.p=half", "a number with 0 <= p < 1"),
    ("train", "dropout.mask=row", "mask='row' is not a kind of dropout; allowed: element, channel, sample"),
    ("train", "dropout.noise=uniform", "allowed: bernoulli, gaussian"),
    ("train", "dropout.scaling=none", "allowed: inverted, classic, unscaled"),
    ("train", "trainer.max_epochs=-1", "must be an integer >= 1"),
    ("train", "trainer.max_epochs=many", "must be an integer >= 1"),
    ("train", "trainer.max_epochs=2 +trainer.check_val_every_n_epoch=5", "would end before the first validation"),
    ("train", "trainer.devices=0", "must be a number of devices >= 1, or auto"),
    ("train", "trainer.devices=two", "must be a number of devices >= 1, or auto"),
    ("train", "trainer.accumulate_grad_batches=0", "must be an integer >= 1"),
    ("train", "data.batch_size=0", "must be an integer >= 1"),
    ("train", "data.val_fraction=1.5", "must be a number between 0 and 1"),
    ("train", "data.image_size=0", "must be an integer >= 1"),
    ("train", "optimizer.lr=-1", "must be a number > 0"),
    ("train", "optimizer.weight_decay=-1", "must be a number >= 0"),
    ("train", "optimizer.match=classic", "must be inverted or null"),
    ("train", "seed=-1", "0 <= seed < 2^32"),
    ("train", "seed=1.5", "0 <= seed < 2^32"),
    ("train", "keyed=perhaps", "must be true or false"),
    ("train", "compile=3", "must be true or false"),
    ("train", "threads=-2", "must be an integer >= 1, or null"),
    ("train", "callbacks.activation_stats.every_n_steps=0", "every_n_steps must be at least 1"),
    ("train", "dropout_schedule=early dropout_schedule.cutoff=2", "cutoff must be in [0, 1]"),
    ("train", "placement.rate=steep", "allowed: constant, linear, geometric, or a list"),
    ("train", "placement.rate=[0.1,0.2]", "lists 2 rates, and the placement has 3 sites"),
    ("train", "placement.where=everywhere", "is not a place for dropout; allowed:"),
    ("train", "dropout", "not an override; write key=value"),
    ("train", "seed=0,1", "add -m"),
    # choices that do not go together
    ("train", "dropout=classic dropout_schedule=linear", "multiplies by 1-p in eval"),
    ("train", "model=mlp dropout=spatial dropout.elsewhere=null", "needs (N, C, *spatial) maps"),
    ("train", "optimizer.match=inverted trainer.gradient_clip_val=1.0", "clipping by the global norm"),
    (
        "train",
        "trainer=ddp_cpu data.batch_size=34 data.mixup=0.2",
        "must be divisible by twice the number of devices, 4",
    ),
    ("train", "data.mixup=-1", "data.mixup=-1: must be a number >= 0"),
    ("train", "trainer=ddp_cpu trainer.devices=3", "must be divisible by their number, 3"),
    ("train", "trainer=ddp_cpu trainer.num_nodes=2", "torchrun or SLURM"),
    ("train", "trainer=ddp trainer.devices=99", "this machine has"),
    ("train", "data.batch_size=4096", "is larger than the training set"),
    ("train", "data.train_size=5", "data.train_size=5"),
    ("train", "model.widths=[8,8,8,8]", "too often for 8x8 pixels"),
    ("train", "model=torchvision data.channels=1", "takes 3 channels"),
    ("train", "model=torchvision model.name=vgg16 model.stem=cifar", "is for residual nets"),
    ("train", "placement=pattern", "placement.pattern needs a value"),
    ("train", "placement=pattern placement.pattern=nothing", "nothing"),
    ("train", "model=torchvision placement=existing", "existing"),
    # files that are not there
    ("train", "model=torchvision model.weights=DIR/weights.pt", "no such file"),
    ("train", "resume=DIR", "no interrupted run is there"),
    ("train", "resume=EMPTY", "no interrupted run is there"),
    ("train", "data=cifar10 data.root=EMPTY data.download=false", "EMPTY"),
    ("train", "-m dropout=inverted,classik", "did you mean 'classic'?"),
    ("train", "-m dropout.p=0.5,1.5", "dropout.p=1.5"),
    ("train", "-m seed=range(0)", "this sweep has no jobs"),
    ("train", "-m seed=0,1 hydra.sweeper.skip=[0]", "is what a comparison leaves out by itself"),
    ("train", "--config-dir=DIR dropout.p=0.2", "hydra.searchpath=[file:///FOLDER]"),
    ("compare", "dropout.p=2", "a number with 0 <= p < 1"),
    ("compare", "optimizer.match=inverted", "is set by classic_matched"),
    ("evaluate", "run=DIR", "does not exist"),
    ("evaluate", "run=EMPTY", "is not a run folder"),
    ("evaluate", "", "run=... is missing"),
    ("evaluate", "run=EMPTY eval.mode=exact", "must be weight_scaling or monte_carlo"),
    ("fold", "run=EMPTY", "out=... is missing"),
    ("fold", "run=EMPTY out=DIR/weights.pt", "there is no folder"),
    ("fold", "run=EMPTY out=EMPTY", "that is a folder; name a file"),
    ("explain", "p=1", "out of range"),
    ("explain", "p=most", "not a number"),
    ("explain", "", "p=0.75"),
    ("look", "model.name=vgg61", "did you mean 'vgg"),
    ("look", "run=DIR", "not a run folder, it has no config.yaml"),
    ("diff", "EMPTY", "two run folders are needed, got 1"),
    ("diff", "EMPTY DIR", "is not a run folder"),
    ("train", "placement.where=[none,input]", "none can't be together with other places"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "words", "expected"), TABLE, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_line_and_leaves_nothing(command, words, expected, tmp_path, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    places = {"DIR": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty")}
    for name, path in places.items():
        words, expected = words.replace(name, path), expected.replace(name, path)
    arguments = words.split()
    if command in ("train", "compare") and "resume=" not in words:
        multirun = command == "compare" or "-m" in arguments
        arguments.append(f"hydra.{'sweep' if multirun else 'run'}.dir={tmp_path / 'made'}")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"dropout_lab.{'look.__main__' if command == 'look' else command}").main(arguments)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert "Error locating target" not in lines[0]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty"]


def test_the_table_is_as_long_as_promised():
    assert len({(command, words) for command, words, _ in TABLE}) >= 60

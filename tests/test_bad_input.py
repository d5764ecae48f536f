"""What is wrong is said in one line, with the exit code of the contract, and leaves nothing behind."""

import numpy as np
import pytest
import torch
from commands import main_of
from PIL import Image

from dropout_lab.data import GlobalBatches

# command, its words, part of the line. DIR is a folder that does not exist, EMPTY holds nothing, BROKEN what is wrong.
NUMBERS = "data=tabular module=regression model=mlp"
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
    ("train", "callbacks=[default,early_stoping]", "did you mean 'early_stopping'? allowed: activation_stats, "),
    ("train", "logger=[csv,tensorbord]", "did you mean 'tensorboard'? allowed: csv, "),
    ("train", "experiment=nothing_like_this", "no such option"),
    ("train", "droput.p=0.5", "did you mean 'dropout.p'?"),
    ("train", "dropout.rate=0.5", "there is no key 'dropout.rate'"),
    ("train", "trainer.epochs=3", "did you mean 'trainer.max_epochs'?"),
    ("train", "sede=1", "did you mean 'seed'?"),
    ("train", "placment.pattern=x", "did you mean 'placement.pattern'?"),
    ("train", "placement.patern=x", "did you mean 'placement.pattern'?"),
    ("train", "run.name=mine", "run: is filled in when a job starts; leave it out"),
    ("train", "notes={1:a,b:c}", "names of one kind only can lie side by side"),
    ("train", "hydra.searchpath=[file://DIR]", "there is no folder DIR"),
    ("train", "hydra.searchpath=[EMPTY] hydra.searchpath=[EMPTY]", "hydra.searchpath is given twice"),
    ("train", "hydra.searchpath=[other://x]", "No config source registered"),
    ("train", "-m hydra.sweeper._target_=nowhere.X", "hydra.sweeper._target_=nowhere.X: No module named 'nowhere'"),
    ("train", "model=torchvision model.name=resnet81", "did you mean 'resnet18'?"),
    (
        "train",
        "model=torchvision +model.grops=2",
        "error: model.grops: resnet18 takes no such key; did you mean 'groups'",
    ),
    (
        "train",
        "model=timm model.name=test_vti",
        "error: model.name=test_vti: no model of timm; did you mean 'test_vit'?",
    ),
    ("train", "model=timm model.name=test_vit +model.pretrained=true", "nothing is downloaded"),
    ("train", "model._target_=dropout_lab.models.CCN", "has no attribute 'CCN'"),
    ("train", "model._target_=nowhere.Model", "No module named 'nowhere'"),
    ("train", "data._target_=dropout_lab.data.Digit", "data._target_=dropout_lab.data.Digit: "),
    ("train", "loss._target_=torch.nn.CrossEntropy", "loss._target_=torch.nn.CrossEntropy: "),
    ("train", "optimizer._target_=torch.optim.SDG", "did you mean 'SGD'?"),
    ("train", "dropout._target_=dropout_lab.dropout.Drpout", "did you mean 'Dropout'?"),
    ("train", "+trainer.max_epoch=3", "trainer.max_epoch: lightning.pytorch.Trainer takes no such key; did you mean"),
    ("train", "trainer.strategy=ddpp", "trainer.strategy=ddpp: must be auto, ddp, "),
    ("train", "+lr_scheduler.foo=1", "lr_scheduler.foo: torch.optim.lr_scheduler.CosineAnnealingLR takes no such key"),
    ("train", "+model.foo=1", "takes no such key; allowed: widths, hidden, batch_norm"),
    ("train", "+data.foo=1", "data.foo: dropout_lab.data.Digits takes no such key; allowed: batch_size, seed, "),
    ("train", "+dropout.foo=1", "takes no such key; allowed: p, mask, noise, scaling, elsewhere"),
    ("train", "+dropout_schedule.foo=1", "dropout_schedule.foo: dropout_lab.dropout.schedules.constant takes no such"),
    ("train", "+logger.wandb.grup=1", "logger.wandb.grup: wandb.init takes no such key; did you mean 'group'?"),
    ("train", "logger=csv +logger.wandb.mode=offline", "add it, 'logger=[default,wandb]'"),
    ("train", "callbacks.checkpoint.monitor=val/los", "nothing logs that; did you mean 'val/loss'?"),
    ("train", "callbacks.checkpoint.monitor=val/acc", "more of val/acc is better; set callbacks.checkpoint.mode=max"),
    (
        "train",
        "data=tabular",
        "classification needs classes, but targets of Tabular are numbers: module=regression takes",
    ),
    ("train", "module=regression", "regression predicts numbers, but Digits has 10 classes: module=classification"),
    (
        "train",
        "data=tabular module=regression",
        "takes images (channels, height, width), not samples of the shape (10,)",
    ),
    ("train", "data=tabular module=regression model=torchvision", "samples of Tabular have the shape (10,)"),
    ("train", f"{NUMBERS} loss.label_smoothing=0.1", "module=regression has a loss of its own; leave this out"),
    ("train", f"{NUMBERS} data.label_noise=0.1", "data.label_noise=0.1: must be 0 here, as targets are numbers"),
    ("train", f"{NUMBERS} data.train_size=5000", "data.train_size=5000: must be between 1 and 243, or null for all"),
    ("train", f"{NUMBERS} data.file=nowhere.csv", "data.file=nowhere.csv: there is no such file"),
    ("train", f"{NUMBERS} data.target=age", "data.target, data.features: are for data.file=FILE"),
    ("train", f"{NUMBERS} data.split=1", 'data.split=1: must be 0 without "*" in data.test_index'),
    ("train", f"{NUMBERS} callbacks.checkpoint.monitor=val/acc", "nothing logs that; allowed: train/loss, val/rmse"),
    ("train", "data.fold=2", "data.fold=2: must be 0 without data.folds=K, the number of folds"),
    ("train", "data.folds=200", "each fold needs a sample of each class, but the rarest class has 174; take fewer"),
    ("train", "replicates=[data.flod]", "replicates: there is no key data.flod; did you mean 'data.fold'?"),
    ("train", "replicates=seed", "replicates=seed: must be a list of keys, as [data.split_seed]"),
    # wrong types and ranges
    ("train", "dropout.p=1.5", "a number with 0 <= p < 1"),
    ("train", "dropout.p=1", "a number with 0 <= p < 1"),
    ("train", "dropout.p=-0.5", "a number with 0 <= p < 1"),
    ("train", "dropout.p=nan", "a number with 0 <= p < 1"),
    ("train", "dropout.p=half", "a number with 0 <= p < 1"),
    ("train", "dropout.mask=row", "dropout.mask=row: must be element, channel or sample"),
    ("train", "dropout.noise=uniform", "dropout.noise=uniform: must be bernoulli or gaussian"),
    ("train", "dropout.scaling=none", "dropout.scaling=none: must be inverted, classic or unscaled"),
    ("train", "dropout=spatial dropout.elsewhere=row", "dropout.elsewhere=row: must be element or sample, or null"),
    ("train", "placement.p=1", "placement.p=1: must be the probability to DROP a unit, a number with 0 <= p < 1"),
    ("train", "placement.rate=[0.1,0.2,1]", "placement.rate: p=1: must be the probability to DROP a unit"),
    ("train", "trainer.max_epochs=-1", "trainer.max_epochs=-1: trainer.max_steps=N ends training then: set it, too"),
    ("train", "trainer.max_epochs=0", "must be an integer >= 1, or -1: trainer.max_steps alone ends training"),
    ("train", "trainer.max_epochs=null", "must be an integer >= 1, or -1: trainer.max_steps alone ends training"),
    ("train", "trainer.max_steps=0", "trainer.max_steps=0: must be a number of steps >= 1, or -1: no limit"),
    ("train", "lr_scheduler.interval=stepp", "lr_scheduler.interval=stepp: must be epoch or step"),
    ("train", "lr_scheduler.intervall=step", "did you mean 'lr_scheduler.interval'?"),
    ("train", "trainer.max_epochs=many", "must be an integer >= 1"),
    ("train", "trainer.max_epochs=2 +trainer.check_val_every_n_epoch=5", "would end before the first validation"),
    ("train", "trainer.devices=0", "must be a number of devices >= 1, or auto"),
    ("train", "trainer.devices=two", "must be a number of devices >= 1, or auto"),
    ("train", "trainer.accumulate_grad_batches=0", "must be an integer >= 1"),
    ("train", "data.batch_size=0", "must be an integer >= 1"),
    ("train", "data.val_fraction=1.5", "data.val_fraction=1.5: must be a number with 0 < val_fraction < 1"),
    ("train", "data.val_fraction=half", "data.val_fraction=half: must be a number with 0 < val_fraction < 1"),
    ("train", "data.test_fraction=0", "data.test_fraction=0: must be a number with 0 < test_fraction < 1"),
    ("train", "data.label_noise=2", "data.label_noise=2: must be a number with 0 <= label_noise <= 1"),
    ("train", "data.label_noise=abc", "data.label_noise=abc: must be a number with 0 <= label_noise <= 1"),
    ("train", "data.label_noise=true", "data.label_noise=True: must be a number with 0 <= label_noise <= 1"),
    ("train", "data.label_noise=null", "data.label_noise=null: must be a number with 0 <= label_noise <= 1"),
    ("train", "data.augment=rotate", "data.augment=rotate: must be crop_flip or resized_crop_flip, or null"),
    ("train", "data.mixup=-1", "data.mixup=-1: must be a number >= 0, the alpha of Beta(alpha, alpha); 0: no mixup"),
    ("train", "data.split_seed=-1", "data.split_seed=-1: must be an integer with 0 <= split_seed < 2^32"),
    ("train", "data.image_size=0", "data.image_size=0: must be an integer >= 1, or null"),
    ("train", "data.channels=2.5", "data.channels=2.5: must be an integer >= 1, or null"),
    ("train", "data.train_size=all", "data.train_size=all: must be an integer >= 1, or null"),
    ("train", "data=image_folder data.root=DIR data.num_workers=-1", "data.num_workers=-1: must be an integer >= 0"),
    ("train", "data=image_folder data.root=DIR data.num_classes=1", "data.num_classes=1: must be an integer >= 2, or"),
    ("train", "data=mnist data.download=perhaps", "data.download=perhaps: must be true or false"),
    ("train", "data=mnist data.root=3", "data.root=3: must be str"),
    ("train", "data=synthetic data.num_classes=1", "data.num_classes=1: must be an integer >= 2"),
    ("train", "data=synthetic data.size=0", "data.size=0: must be an integer >= 1"),
    ("train", "data=synthetic data.noise=-1", "data.noise=-1: must be a number >= 0"),
    ("train", "data=synthetic data.shape=[8,8]", "data.shape=[8, 8]: must be a list of 3 integers >= 1: channels, "),
    ("train", "loss.label_smoothing=1", "loss.label_smoothing=1: must be the share of the target for all classes"),
    ("train", "optimizer.lr=-1", "must be a number > 0"),
    ("train", "optimizer.weight_decay=-1", "must be a number >= 0"),
    ("train", "optimizer.match=classic", "must be inverted or null"),
    ("train", "seed=-1", "0 <= seed < 2^32"),
    ("train", "seed=1.5", "0 <= seed < 2^32"),
    ("train", "keyed=perhaps", "must be true or false"),
    ("train", "compile=3", "must be true or false"),
    ("train", "threads=-2", "must be an integer >= 1, or null"),
    ("train", "callbacks.activation_stats.every_n_steps=0", "stats.every_n_steps=0: must be an integer >= 1"),
    ("train", "callbacks.activation_stats.every_n_steps=null", "stats.every_n_steps=null: must be an integer >= 1"),
    ("train", "callbacks.activation_stats.probe_masks=-1", "stats.probe_masks=-1: must be an integer >= 0"),
    ("train", "callbacks.activation_stats.max_layers=1", "stats.max_layers=1: must be an integer >= 2, or null"),
    ("train", "callbacks=[default,max_norm] callbacks.max_norm.radius=0", "max_norm.radius=0: must be a number > 0"),
    ("train", "callbacks=[default,weight_averaging] callbacks.weight_averaging.decay=2", "averaging: Invalid decay"),
    (
        "train",
        "lr_scheduler=warmup_cosine lr_scheduler.warmup=-1",
        "warmup=-1: must be a number of epochs, or of ",
    ),
    ("train", "trainer.precision=fp99", "trainer.precision=fp99: must be 64, 32, 16 or "),
    ("train", "trainer.deterministic=perhaps", "must be true, false, warn or null"),
    ("train", "trainer.num_nodes=two", "must be an integer >= 1"),
    ("train", "+trainer.limit_val_batches=abc", "trainer.limit_val_batches=abc: must be a number of batches >= 1, "),
    ("train", "+trainer.profiler=simpl", "trainer.profiler=simpl: must be simple, advanced, "),
    ("train", "lr_scheduler.eta_min=abc", "lr_scheduler.eta_min=abc: must be float"),
    ("train", "lr_scheduler.T_max=abc", "lr_scheduler.T_max=abc: must be int"),
    ("train", "lr_scheduler=steps lr_scheduler.milestones=[1] lr_scheduler.gamma=x", "lr_scheduler.gamma=x: must be"),
    ("train", "~lr_scheduler.T_max", "lr_scheduler: TypeError: "),
    ("train", "+loss.reduction=none", "loss: must be one number for a batch"),
    ("train", "logger.wandb.mode=offlin", "must be auto, online, offline or disabled"),
    ("train", "model.hidden=0", "model.hidden=0: must be an integer >= 1"),
    ("train", "model.batch_norm=perhaps", "model.batch_norm=perhaps: must be true or false"),
    ("train", "model.widths=[]", "model.widths=[]: must be a list of 1 or more integers >= 1"),
    ("train", "model.widths=3", "model.widths=3: must be a list of 1 or more integers >= 1"),
    ("train", "model=mlp model.widths=[8,0]", "model.widths=[8, 0]: must be a list of 0 or more integers >= 1"),
    ("train", "model=convnet model.hidden=8", "model.hidden=8: must be a list of 0 or more integers >= 1"),
    ("train", "model=wide_resnet model.depth=10 model.width=0", "model.width=0: must be an integer >= 1"),
    ("train", "model=wide_resnet model.depth=abc", "model.depth=abc: must be 6n + 4, as 10, 16, 22, 28, 40"),
    ("train", "optimizer.momentum=abc", "optimizer.momentum=abc: must be float"),
    ("train", "dropout_schedule=early dropout_schedule.cutoff=2", "schedule.cutoff=2: must be a number with 0 <= "),
    ("train", "dropout_schedule=late dropout_schedule.cutoff_epoch=26", "cutoff_epoch=26: must be a number with 0 <= "),
    (
        "train",
        "dropout_schedule=early dropout_schedule.cutoff_epoch=x",
        ".cutoff_epoch=x: must be float or null",
    ),
    (
        "train",
        "dropout_schedule=early dropout_schedule.cutoff=0.2 dropout_schedule.cutoff_epoch=5",
        "error: dropout_schedule.cutoff_epoch=5: must be null where cutoff=0.2 is given",
    ),
    (
        "train",
        "dropout_schedule=early dropout_schedule.cutoff_epoch=5 trainer.max_epochs=-1 +trainer.max_steps=9",
        "error: dropout_schedule.cutoff_epoch=5: must be null where trainer.max_steps ends training; give dropout",
    ),
    (
        "train",
        "dropout_schedule=early dropout_schedule.shape=steep",
        ".shape=steep: must be linear or constant",
    ),
    ("train", "dropout_schedule=curriculum dropout_schedule.gamma=0", "gamma=0: must be a finite number > 0"),
    ("train", "dropout_schedule=linear dropout_schedule.end=abc", "dropout_schedule.end=abc: must be float"),
    ("train", "placement.rate=steep", "placement.rate=steep: must be constant, linear, geometric, or a list of p"),
    ("train", "placement.rate=[0.1,0.2]", "lists 2 rates, and the placement has 3 sites"),
    ("train", "placement.where=everywhere", "placement.where=everywhere: must be one or several of default, "),
    ("train", "dropout", "not an override; write key=value"),
    ("train", "seed=0,1", "add -m"),
    # choices that do not go together
    ("train", "dropout=classic dropout_schedule=linear", "multiplies by 1-p in eval"),
    ("train", "model=mlp dropout=spatial dropout.elsewhere=null", "needs (N, C, *spatial) maps"),
    ("train", "optimizer.match=inverted trainer.gradient_clip_val=1.0", "clipping by the global norm"),
    ("train", "optimizer._target_=torch.optim.Adamax ~optimizer.momentum optimizer.match=inverted", "for Adamax; "),
    (
        "train",
        "trainer=ddp_cpu data.batch_size=34 data.mixup=0.2",
        "must be divisible by twice the number of devices, 4",
    ),
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
    ("train", "-m dropout=glob(x*)", "this sweep has no jobs"),
    ("train", "-m sweep=optuna seed=range(0)", "a search needs at least one value to try"),
    ("train", "-m sweep=optuna dropout=glob(*)", "list them: dropout=choice(a,b)"),
    ("train", "-m sweep=optuna hydra.sweeper.sampler._target_=nowhere.Sampler", "it can't be made: ImportError: "),
    ("train", "-m hydra/launcher=joblib hydra.launcher._target_=no.Launcher", "Invalid plugin 'no.Launcher'"),
    ("train", "-m hydra/launcher=joblib +hydra.launcher.jobs=2", "joblib: it can't be made: TypeError: "),
    ("train", "--cfgg=job", "--cfgg=job; did you mean '--cfg'? usage: "),
    ("train", "--cfg jobb", "invalid choice: 'jobb' (choose from"),
    ("train", "-sc", "--shell-completion: add install=SHELL"),
    ("train", "-sc install=csh", "SHELL is bash, fish or zsh"),
    ("compare", "--multirunn", "--multirunn; did you mean '--multirun'? usage: "),
    ("train", "--config-dir=DIR dropout.p=0.2", "hydra.searchpath=[file:///FOLDER]"),
    ("compare", "dropout.p=2", "a number with 0 <= p < 1"),
    ("compare", "optimizer.match=inverted", "is set by classic_matched"),
    ("evaluate", "run=DIR", "does not exist"),
    ("evaluate", "run=DIR\udce9", "its name is not UTF-8; rename it"),
    ("report", "DIR\udce9", "its name is not UTF-8; rename it"),
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
    ("diff", "EMPTY", "folders needed: 2, given: 1"),
    ("diff", "EMPTY DIR", "EMPTY: is not a run folder"),
    ("diff", "DIR EMPTY", "error: DIR: does not exist; give the folder of one run"),
    ("report", "", "the following arguments are required: "),
    ("report", "DIR", "no such folder"),
    ("report", "EMPTY", "no runs in"),
    ("report", "EMPTY --figurs=out", "--figurs=out; did you mean '--figures'? usage: scripts/lab report"),
    ("verdict", "", "folders needed: 1, given: 0; usage: scripts/lab verdict"),
    ("verdict", "EMPTY DIR", "folders needed: 1, given: 2; usage: scripts/lab verdict"),
    ("verdict", "DIR", "no such folder"),
    ("verdict", "EMPTY", "no runs in"),
    ("dashboard", "--pushh", "--pushh: not key=value; usage: scripts/lab dashboard [--push]"),
    ("dashboard", "projct=mine", "did you mean 'project'?"),
    ("dashboard", "runs=EMPTY", "no metrics.csv below it"),
    ("train", "placement.where=[none,input]", "none can't be together with other places"),
    # files that say something else than they should, or nothing
    (
        "train",
        "hydra.searchpath=[file://BROKEN] experiment=tab",
        "tab.yaml: line 3: found character that cannot start any token",
    ),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] experiment=bracket",
        "bracket.yaml: line 3: did not find expected ',' or ']'",
    ),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] experiment=latin",
        "latin.yaml: line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8",
    ),
    ("train", "hydra.searchpath=[file://BROKEN] experiment=list", "list.yaml: it holds list, not names with values"),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] experiment=headless",
        "headless.yaml: nothing reads its settings as those of 'experiment'; its first line has to be '# @p",
    ),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] experiment=other_package",
        "nothing reads what '# @package experiment' makes of it; write '# @package _global_' instead",
    ),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] experiment=typo",
        "typo.yaml, line 2: nothing reads 'optimzer'; did you mean 'optimizer'?",
    ),
    ("train", "hydra.searchpath=[file://BROKEN] experiment=to_nowhere", "nowhere.lr"),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] -m sweep=headless",
        "headless.yaml: nothing reads its settings as those of 'sweep'; its first line has to be",
    ),
    (
        "train",
        "hydra.searchpath=[file://BROKEN] model=global",
        "global.yaml, line 2: nothing reads 'widths' outside of 'model'; leave the line '# @package _global_' out",
    ),
    (
        "train",
        "data=image_folder data.root=BROKEN/one data.image_size=8",
        "BROKEN/one/train has one class folder, a; two or more are needed",
    ),
    (
        "train",
        "data=image_folder data.root=BROKEN/deep data.image_size=8",
        "if a, b are the classes, move them one level up, into BROKEN/deep/train",
    ),
    (
        "train",
        "data=image_folder data.root=BROKEN/lonely data.image_size=8 data.val_fraction=0.4",
        "lonely/train/b has 1 of 9 samples, too few",
    ),
    (
        "train",
        "data=image_folder data.root=BROKEN/text data.image_size=8",
        "BROKEN/text/train/a/0.png cannot be read as an image",
    ),
    (
        "train",
        "data=image_folder data.root=BROKEN/uneven",
        "BROKEN/uneven/train/a/1.png has 8x10 pixels, others 8x9; give data.image_size=PIXELS",
    ),
    (
        "train",
        "model=torchvision model.name=squeezenet1_1 model.weights=BROKEN/other.pt",
        "not the weights of squeezenet1_1: it lacks features.0.weight, ",
    ),
    (
        "train",
        "model=torchvision model.name=squeezenet1_1 model.weights=BROKEN/no_weights.pt",
        "BROKEN/no_weights.pt: cannot be read as a file of weights",
    ),
    (
        "look",
        "model.name=squeezenet1_1 image=BROKEN/text/train/a/0.png",
        "image=BROKEN/text/train/a/0.png cannot be read as an image",
    ),
    # what a library would refuse, or take and break a run with
    ("train", "tags=['']", "logger.wandb.tags=['']: must be a list of texts of 1 to 64 characters"),
    ("train", "tags=[" + 70 * "a" + "]", "']: must be a list of texts of 1 to 64 characters"),
    (
        "train",
        "logger.wandb.project=a/b",
        "logger.wandb.project=a/b: must be a text of at most 128 characters without any of",
    ),
    (
        "train",
        "logger.wandb.entity=a?b",
        "logger.wandb.entity=a?b: must be a text of at most 128 characters without any of",
    ),
    (
        "train",
        "logger.wandb.id=a/b",
        "logger.wandb.id=a/b: must be a text of at most 128 characters without any of",
    ),
    (
        "train",
        "logger=tensorboard logger.tensorboard.max_queue=abc",
        "logger.tensorboard.max_queue=abc: must be int",
    ),
    ("dashboard", "project=a/b", "project=a/b: must be a text of at most 128 characters without any of"),
    ("train", "trainer.fast_dev_run=true", "must be false: debug=fast is a short run"),
    (
        "train",
        "trainer.max_steps=1",
        "trainer.max_steps=1: training would end before the first validation, after 15 steps; ",
    ),
    (
        "train",
        "trainer.limit_val_batches=0",
        "trainer.limit_val_batches=0: must be a number of batches >= 1, ",
    ),
    ("train", "trainer.strategy=ddp_spawn", "its processes are started by this package"),
    ("train", "callbacks=[default,weight_averaging] +callbacks.weight_averaging.decya=0.9", "did you mean 'decay'?"),
    (
        "train",
        "trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,statik_graph:true}",
        "trainer.strategy.statik_graph: ",
    ),
    (
        "train",
        "callbacks.checkpoint.save_top_k=3",
        "must be left out: best.ckpt is one file, the best of all validations; to keep more ",
    ),
    (
        "train",
        "callbacks.checkpoint.filename=mine",
        "must be left out: best.ckpt is one file",
    ),
    (
        "train",
        "callbacks.checkpoint._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "does not know the run folder",
    ),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Configurations, folders of images and files of weights, each with something wrong."""
    folder = tmp_path_factory.mktemp("broken")
    head = b"# @package _global_\n"
    configurations = {
        "experiment/tab": head + b"trainer:\n\tmax_epochs: 1\n",
        "experiment/bracket": head + b"tags: [a\n",
        "experiment/latin": head + b"notes: caf\xe9\n",
        "experiment/list": head + b"- a\n",
        "experiment/headless": b"optimizer: {lr: 0.5}\n",
        "experiment/other_package": b"# @package experiment\noptimizer: {lr: 0.5}\n",
        "experiment/typo": head + b"optimzer: {lr: 0.5}\n",
        "experiment/to_nowhere": head + b"optimizer: {lr: '${nowhere.lr}'}\n",
        "sweep/headless": b"hydra: {sweeper: {params: {seed: 0}}}\n",
        "model/global": head + b"widths: [4]\n",
    }
    for name, content in configurations.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    image = Image.fromarray(np.zeros((9, 8), dtype=np.uint8))
    places = {
        "one": ["a"],
        "deep": ["images/a", "images/b"],
        "lonely": ["a", "b"],
        "text": ["a", "b"],
        "uneven": ["a", "b"],
    }
    for name, classes in places.items():
        for part in ("train", "test"):
            for of_class in classes:
                at = folder / name / part / of_class
                at.mkdir(parents=True)
                count = 1 if (name, part, of_class) == ("lonely", "train", "b") else 8
                for number in range(count):
                    image.resize((8, 9 + number * (name == "uneven"))).save(at / f"{number}.png")
    (folder / "text" / "train" / "a" / "0.png").write_text("no picture")
    torch.save({"weight": torch.zeros(2, 2)}, folder / "other.pt")
    (folder / "no_weights.pt").write_text("no weights")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("command", "words", "expected"), TABLE, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_line_and_leaves_nothing(command, words, expected, broken, tmp_path, monkeypatch, capfd):
    (tmp_path / "empty").mkdir()
    places = {"DIR": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty"), "BROKEN": str(broken)}
    for name, path in places.items():
        words, expected = words.replace(name, path), expected.replace(name, path)
    arguments = words.split()
    if command in ("train", "compare") and "resume=" not in words:
        multirun = command == "compare" or "-m" in arguments
        arguments.append(f"hydra.{'sweep' if multirun else 'run'}.dir={tmp_path / 'made'}")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SystemExit) as ended:
        main_of(f"dropout_lab.{command}").main(arguments)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert "Error locating target" not in lines[0]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty"]


@pytest.mark.slow
def test_what_is_refused_before_torch_is_imported_and_by_the_data_has_the_same_words(capsys):
    with pytest.raises(SystemExit):
        main_of("dropout_lab.train").main(["trainer=ddp_cpu", "trainer.devices=3"])
    with pytest.raises(ValueError, match="must be divisible") as caught:
        GlobalBatches(size=1000, batch_size=64, seed=0, world_size=3)
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_the_table_is_as_long_as_promised():
    assert len({(command, words) for command, words, _ in TABLE}) >= 60

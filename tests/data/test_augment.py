"""Laws of augmentation: what happens to an image, by chance as asked, and the same however training is cut up."""

import math
from types import SimpleNamespace

import lightning
import pytest
import torch
from scipy.stats import beta, kstest, uniform
from torch import nn
from torchvision.transforms.functional import crop, hflip, pad

from dropout_lab.data import InMemoryData, Samples
from dropout_lab.data.augment import batch_key, crop_flip, mixing_share, mixup, resized_crop_flip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*LeafSpec"
)
WHERE = {"seed": 3, "epoch": 2, "batch": 5, "first_row": 0}


def images(count=64, channels=3, height=8, width=6, dtype=torch.uint8):
    made = torch.randint(1, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0))
    return made.to(dtype)


def choices(count, **where):
    """Choices (top, left, mirrored) of every row, read off images whose pixels are their places."""
    size = 9  # with 4 pixels of padding the middle one is always in the picture
    places = (torch.arange(size * size, dtype=torch.float32) + 1).view(1, 1, size, size).expand(count, -1, -1, -1)
    middles = crop_flip(places, batch_key(**{**WHERE, **where}))[:, 0]
    found = []
    for seen in middles:
        row, column = divmod(int(seen[seen > 0][0]) - 1, size)
        y, x = (seen > 0).nonzero()[0].tolist()
        mirrored = bool(((seen[:, :-1] > seen[:, 1:]) & (seen[:, 1:] > 0)).any())
        column = size - 1 - column if mirrored else column
        found.append((row - y + 4, (column - x if not mirrored else x - column) + 4, mirrored))
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 5, 9), (2, 1, 1)])
def test_each_image_is_torchvisions_crop_and_mirror_of_itself(shape, dtype):
    before = images(50, *shape, dtype=dtype)
    after = crop_flip(before, batch_key(**WHERE))
    assert after.dtype == dtype
    assert after.shape == before.shape
    for (top, left, mirrored), image, seen in zip(choices(50), before, after, strict=True):
        expected = crop(pad(image, 4), top, left, *shape[1:])
        assert torch.equal(seen, hflip(expected) if mirrored else expected)


def test_every_crop_is_as_likely_and_half_of_the_images_are_mirrored():
    count = 3240
    found = torch.tensor(choices(count))
    assert set(found[:, 0].tolist()) == set(found[:, 1].tolist()) == set(range(9))
    cells = torch.bincount((found[:, 0] * 9 + found[:, 1]) * 2 + found[:, 2], minlength=162)
    chi2 = ((cells - 20.0) ** 2 / 20).sum()
    assert 102 < chi2 < 235  # 161 degrees of freedom: outside with probability 4e-4


@pytest.mark.parametrize("augment", [crop_flip, resized_crop_flip])
@pytest.mark.parametrize("split", [[32, 32], [16] * 4, [1] * 64, [5, 59]])
def test_rows_of_a_batch_can_be_split_over_processes(split, augment):
    whole, parts, first = augment(images(), batch_key(**WHERE)), [], 0
    for own in images().split(split):
        parts.append(augment(own, batch_key(**{**WHERE, "first_row": first})))
        first += len(own)
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 3}, {"batch": 6}, {"first_row": 64}])
def test_another_seed_epoch_batch_or_row_is_another_crop(other):
    assert choices(64, **other) != choices(64)


def test_neither_torchs_generator_nor_earlier_calls_matter():
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), choices(64)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    crop_flip(images(), batch_key(**{**WHERE, "batch": 4}))
    assert choices(64) == first


def rectangles(count, **where):
    """Cuts (top, bottom, left, right, mirrored) of every row, as shares of images that are ramps of 64 x 48 pixels."""
    ramps = torch.stack(torch.meshgrid(torch.arange(64.0) + 0.5, torch.arange(48.0) + 0.5, indexing="ij"))
    seen = resized_crop_flip(ramps.double().expand(count, -1, -1, -1), batch_key(**{**WHERE, **where}))
    found = []
    for line, size in ((seen[:, 0, :, 7], 64), (seen[:, 1, 7], 48)):  # the middle, where no border is near
        middle, step = (
            line[:, size // 2 - 1 : size // 2 + 1].mean(1),
            (line[:, size // 2 + 4] - line[:, size // 2 - 4]) / 8,
        )
        found.append(torch.stack([middle - step.abs() * size / 2, middle + step.abs() * size / 2, step]) / size)
    (top, bottom, down), (left, right, across) = found
    assert (down > 0).all()
    return top, bottom, left, right, across < 0


def test_rectangles_lie_in_the_image_with_shares_and_ratios_as_asked():
    top, bottom, left, right, mirrored = rectangles(2000)
    for first, last in ((top, bottom), (left, right)):
        assert (first > -1e-6).all()
        assert (last < 1 + 1e-6).all()
    share, ratio = (bottom - top) * (right - left), (right - left) / (bottom - top)
    assert 0.08 - 1e-6 < share.min() < 0.1
    assert share.max() > 0.97
    assert 3 / 4 - 1e-6 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 4 / 3 + 1e-6
    free = (bottom - top < 0.8) & (right - left < 0.8)  # those that are not cut to the image
    assert kstest(share[share < 0.4], uniform(0.08, 0.32).cdf).pvalue > 1e-4
    assert kstest(ratio[free].log(), uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf).pvalue > 1e-4
    for first, last in ((top, bottom), (left, right)):
        assert kstest((first / (1 - last + first))[free], uniform.cdf).pvalue > 1e-4
    assert 0.46 < mirrored.double().mean() < 0.54


def test_the_whole_rectangle_is_the_image_or_its_mirror_image():
    before = images(40)
    after = resized_crop_flip(before, batch_key(**WHERE), area=1.0, ratio=1.0)
    kinds = [torch.equal(seen, hflip(image)) for seen, image in zip(after, before, strict=True)]
    assert all(kind or torch.equal(seen, image) for kind, seen, image in zip(kinds, after, before, strict=True))
    assert 5 < sum(kinds) < 35


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_the_dtype_of_images_changes_only_how_results_are_rounded(dtype):
    before = images(8, height=16, width=16, dtype=torch.float64)
    seen = resized_crop_flip(before, batch_key(**WHERE))
    assert seen.shape == before.shape
    assert resized_crop_flip(before.to(dtype), batch_key(**WHERE)).dtype == dtype
    torch.testing.assert_close(
        resized_crop_flip(before.to(dtype), batch_key(**WHERE)).double(), seen, rtol=0.01, atol=0.5 + 1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_partners_are_neighbours_and_share_image_and_target_alike(dtype):
    before, classes = images(6, dtype=dtype), torch.tensor([0, 1, 2, 2, 1, 0])
    mixed, targets = mixup(before, classes, 3, 0.75)
    assert (mixed.dtype, targets.dtype) == (dtype, torch.promote_types(dtype, torch.float32))
    for row, partner in ((0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)):
        expected = 0.75 * before[row].double() + 0.25 * before[partner].double()
        torch.testing.assert_close(
            mixed[row].double(), expected, rtol=0.02 if dtype == torch.bfloat16 else 1e-6, atol=0
        )
        both = torch.zeros(3)
        both[classes[row]] += 0.75
        both[classes[partner]] += 0.25
        assert torch.equal(targets[row].float(), both)


def test_a_share_of_one_mixes_nothing():
    mixed, targets = mixup(images(4, dtype=torch.float32), torch.arange(4), 4, 1.0)
    assert torch.equal(mixed, images(4, dtype=torch.float32))
    assert torch.equal(targets, torch.eye(4))


def test_an_odd_number_of_rows_has_no_pairs():
    with pytest.raises(ValueError, match="each device needs an even number of rows a batch, got 5"):
        mixup(images(5, dtype=torch.float32), torch.zeros(5, dtype=torch.int64), 2, 0.5)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed_over_seeds_epochs_and_batches(alpha):
    shares = [mixing_share(seed, epoch, batch, alpha) for seed in range(8) for epoch in range(8) for batch in range(32)]
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 1e-4
    assert len(set(shares)) > 0.99 * len(shares)


# In training.


class Colours(InMemoryData):
    """A data set of 60 images of bytes."""

    native_shape, num_classes = (3, 8, 6), 3

    def load(self):
        return Samples(images(60), torch.arange(60) % 3)


class Recorder(lightning.LightningModule):
    """A module that trains nothing that matters and keeps the batches that it sees."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = nn.Linear(1, 1), {"train": {}, "val": [], "test": []}
        self.targets = {}

    def training_step(self, batch, number):
        self.seen["train"][self.current_epoch, number] = batch[0].clone()
        self.targets[self.current_epoch, number] = batch[1].clone()
        return self.net(torch.ones(1, 1)).sum()

    def validation_step(self, batch, number, dataloader_idx=0):
        self.seen["val"].append(batch[0].clone())

    def test_step(self, batch, number):
        self.seen["test"].append(batch[0].clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(tmp_path, recorder=None, data=None, ckpt=None, **options):
    data = data or Colours(batch_size=4, seed=1, augment="crop_flip")
    recorder = recorder or Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(recorder, data, ckpt_path=ckpt)
    return trainer, recorder, data


def test_training_batches_are_augmented_and_evaluation_is_not(tmp_path):
    trainer, recorder, data = train(tmp_path)
    trainer.test(recorder, data, verbose=False)
    seen, order = recorder.seen, data.train_dataloader().sampler
    assert len(seen["train"]) == 2 * len(order) == 16
    for epoch in (0, 1):
        order.set_epoch(epoch)
        for number, rows in enumerate(order):
            raw = crop_flip(data.train.inputs[rows], batch_key(1, epoch, number, 0))
            assert torch.equal(seen["train"][epoch, number], data.prepare(raw)), (epoch, number)
    plain = data.prepare(torch.cat([data.val.inputs, data.train_eval.inputs]))
    assert torch.equal(torch.cat(seen["val"][-len(seen["val"]) // 3 :]), plain)  # sanity check, and two epochs
    assert torch.equal(torch.cat(seen["test"]), data.prepare(data.test.inputs))


BOTH = {"augment": "crop_flip", "mixup": 0.5}


def test_training_batches_are_mixed_after_cropping_and_evaluation_is_not(tmp_path):
    trainer, recorder, data = train(tmp_path, data=Colours(batch_size=4, seed=1, **BOTH))
    trainer.test(recorder, data, verbose=False)
    order = data.train_dataloader().sampler
    order.set_epoch(1)
    for number, rows in enumerate(order):
        seen = data.prepare(crop_flip(data.train.inputs[rows], batch_key(1, 1, number, 0)))
        seen, targets = mixup(seen, data.train.targets[rows], 3, mixing_share(1, 1, number, 0.5))
        assert torch.equal(recorder.seen["train"][1, number], seen)
        assert torch.equal(recorder.targets[1, number], targets)
    assert torch.equal(torch.cat(recorder.seen["test"]), data.prepare(data.test.inputs))


def test_a_resumed_epoch_goes_on_with_the_same_crops_and_mixtures(tmp_path):
    _, whole, _ = train(tmp_path, data=Colours(batch_size=4, seed=1, **BOTH))

    class Interrupted(Recorder):
        def on_train_batch_end(self, outputs, batch, number):
            if (self.current_epoch, number) == (1, 2):
                self.trainer.save_checkpoint(tmp_path / "middle.ckpt")

    train(tmp_path, Interrupted(), Colours(batch_size=4, seed=1, **BOTH))
    _, resumed, _ = train(tmp_path, data=Colours(batch_size=4, seed=1, **BOTH), ckpt=tmp_path / "middle.ckpt")
    assert sorted(resumed.seen["train"]) == [(1, number) for number in range(3, 8)]
    for where, batch in resumed.seen["train"].items():
        assert torch.equal(batch, whole.seen["train"][where])


def test_accumulated_batches_have_crops_of_their_own(tmp_path):
    _, one, _ = train(tmp_path)
    _, four, _ = train(tmp_path, accumulate_grad_batches=4)
    assert all(torch.equal(four.seen["train"][where], batch) for where, batch in one.seen["train"].items())


@pytest.mark.parametrize(("world_size", "options"), [(2, BOTH), (4, {"augment": "crop_flip"})])
def test_ranks_see_the_images_of_one(world_size, options, tmp_path):
    _, recorder, _ = train(tmp_path, data=Colours(batch_size=4, seed=1, **options))
    ranks = []
    for rank in range(world_size):
        data = Colours(batch_size=4, seed=1, **options)
        data.setup()
        data.trainer = SimpleNamespace(
            global_rank=rank,
            world_size=world_size,
            training=True,
            current_epoch=1,
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=-1)),
            precision_plugin=SimpleNamespace(convert_input=lambda images: images),
        )
        loader = data.train_dataloader()
        loader.sampler.set_epoch(1)
        seen = []
        for batch in loader:
            seen.append(data.on_after_batch_transfer(batch, 0))
            data.trainer.fit_loop.epoch_loop.batch_idx += 1
        ranks.append(seen)
    for number, parts in enumerate(zip(*ranks, strict=True)):
        assert torch.equal(torch.cat([part[0] for part in parts]), recorder.seen["train"][1, number])
        assert torch.equal(torch.cat([part[1] for part in parts]), recorder.targets[1, number])


def test_without_augment_training_sees_the_images_as_they_are(tmp_path):
    _, recorder, data = train(tmp_path, data=Colours(batch_size=4, seed=1))
    rows = next(iter(data.train_dataloader().sampler))
    assert torch.equal(recorder.seen["train"][0, 0], data.prepare(data.train.inputs[rows]))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64), ("32-true", torch.float32)]
)
def test_bytes_are_standardised_before_they_are_rounded_to_the_precision_of_training(precision, dtype, tmp_path):
    class Typed(Recorder):
        def training_step(self, batch, number):
            super().training_step(batch, number)
            return self.net(batch[0].flatten()[:1]).sum()

    _, recorder, data = train(tmp_path, Typed(), Colours(batch_size=4, seed=1), precision=precision)
    rows = next(iter(data.train_dataloader().sampler))
    seen = recorder.seen["train"][0, 0]
    assert seen.dtype == dtype
    assert torch.equal(seen, data.prepare(data.train.inputs[rows]).to(dtype))
    assert torch.equal(recorder.seen["val"][0], data.prepare(data.val.inputs).to(dtype))

"""Laws of the length of a training: the epochs, steps and batches of Lightning's loop, whatever ends it."""

import lightning
import pytest
from classifying import STEPS, data, made, trainer
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.modules.length import length, length_of


def simulated(epoch, together, max_epochs, max_steps):
    """Epochs, steps and batches of a loop in which an epoch's last batches make a step of their own."""
    epochs = steps = batches = 0
    while epochs != max_epochs:
        epochs += 1
        for batch in range(1, epoch + 1):
            batches += 1
            steps += batch % together == 0 or batch == epoch
            if steps == max_steps:
                return epochs, steps, batches
    return epochs, steps, batches


@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([-1, 1, 2, 5]), st.integers(1, 20))
def test_the_first_of_two_limits_ends_a_training(epoch, together, max_epochs, max_steps):
    assert length(epoch, together, max_epochs, max_steps) == simulated(epoch, together, max_epochs, max_steps)
    alone = length(epoch, together, max(max_epochs, 1), -1)
    assert alone == simulated(epoch, together, max(max_epochs, 1), -1)


def test_a_training_without_limits_has_no_length():
    for max_epochs in (-1, None):
        with pytest.raises(ValueError, match="without max_epochs and max_steps has no length"):
            length(3, 1, max_epochs, -1)


class Counting(lightning.Callback):
    """Counts the batches of a training, and asks for its length in each."""

    def __init__(self):
        self.batches, self.asked = 0, set()

    def on_train_batch_start(self, trainer, *_):
        self.batches += 1
        self.asked.add(length_of(trainer))


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval", "ignore:.*LeafSpec")
@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 2},
        {"epochs": -1, "max_steps": 7},
        {"epochs": 9, "max_steps": 2 * STEPS},
        {"epochs": -1, "max_steps": 4, "accumulate_grad_batches": 2},
        {"epochs": 2, "max_steps": 4, "accumulate_grad_batches": 3, "limit_train_batches": 4},
    ],
)
def test_it_is_known_from_the_first_batch_on(options):
    counting = Counting()
    fitter = trainer(**options, callbacks=[counting])
    fitter.fit(made(), data())
    (found,) = counting.asked
    assert (found.steps, found.batches) == (fitter.global_step, counting.batches)

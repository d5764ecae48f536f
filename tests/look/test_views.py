"""Laws of the views of a look: what differs between the conditions is dropout alone."""

import numpy as np
import pytest
import torch
import torchvision
from looks import FIRST, SECOND, VECTOR, Net, outputs, subject
from torch import nn

from dropout_lab.cli import UserError
from dropout_lab.dropout import Dropout
from dropout_lab.look.subject import Subject
from dropout_lab.look.views import OFF, look_at
from dropout_lab.look.words import table


def test_dropout_off_is_the_network_itself_and_it_is_left_as_it_was():
    seen = subject()
    before, state = seen.net(seen.x), torch.get_rng_state()
    look = look_at(seen, 0.5)
    torch.testing.assert_close(look.views[OFF].probabilities, before[0].softmax(0), rtol=0, atol=0)
    torch.testing.assert_close(seen.net(seen.x), before, rtol=0, atol=0)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks or module.training for module in seen.net.modules())


def test_element_wise_and_unscaled_have_the_same_masks_and_differ_in_scaling():
    plain, element, _, unscaled = outputs(look_at(subject(), 0.75), FIRST)
    kept = element != 0
    assert 0.15 < kept[plain != 0].float().mean() < 0.35
    torch.testing.assert_close(element, plain * kept / 0.25)
    torch.testing.assert_close(unscaled, plain * kept)


def test_spatial_drops_whole_maps_and_rescales_the_others():
    plain, _, spatial, _ = outputs(look_at(subject(), 0.5), FIRST)
    dropped = (spatial == 0).all(2).all(1)
    assert 0.2 < dropped.float().mean() < 0.8
    torch.testing.assert_close(spatial[~dropped], plain[~dropped] * 2)


def test_spatial_drops_single_units_where_there_are_no_maps_and_says_so():
    look = look_at(subject(), 0.5, where="existing", patterns=[VECTOR])
    plain, element, spatial, _ = outputs(look, VECTOR)
    assert plain.shape == (30,)
    torch.testing.assert_close(spatial, element)
    assert f"No maps to drop in {VECTOR}" in table(look)


def test_later_layers_see_what_dropout_left_of_the_earlier_ones():
    seen = subject()
    look = look_at(seen, 0.5, ["01_relu"], where="layers")  # both calls of the module
    _, first, _, _ = outputs(look, FIRST)
    plain, second, _, _ = outputs(look, SECOND)
    by_hand = seen.net.second(first[None])[0].relu()
    torch.testing.assert_close(second[second != 0], 2 * by_hand[second != 0])
    assert look.dropped == [FIRST, SECOND]
    assert not torch.equal(plain, by_hand)


def test_what_follows_in_place_does_not_change_what_is_shown():
    plain, *_ = outputs(look_at(subject(), 0.5, ["00_first"], where="existing"), "00_first")
    assert plain.min() < 0


@pytest.mark.parametrize("where", ["layers", "existing", "activations", "convolutions"])
def test_dropout_acts_where_it_is_told(where):
    look = look_at(subject(), 0.5, ["00_first"], where=where)
    expected = {
        "layers": ["00_first"],
        "existing": [VECTOR],
        "activations": [FIRST, SECOND],
        "convolutions": ["00_first", "02_second"],
    }
    assert look.dropped == expected[where]
    plain, element, *_ = outputs(look, "00_first")
    assert (not torch.equal(plain, element)) == (where in ("layers", "convolutions"))


def test_a_place_that_the_network_lacks_is_refused():
    with pytest.raises(UserError, match="where=existing: the network has no such layer"):
        look_at(subject(Net(nn.Identity())), 0.5, where="existing")


def test_on_top_of_classic_dropout_element_wise_is_what_training_did():
    """Classic evaluates to x * q, so inverted dropout after it is x * m."""
    seen = subject(Net(Dropout(0.75, scaling="classic")))
    given = []
    handle = seen.net.drop.register_forward_pre_hook(lambda module, args: given.append(args[0][0]))
    plain, element, *_ = outputs(look_at(seen, 0.75, [VECTOR], where="existing"), VECTOR)
    handle.remove()
    torch.testing.assert_close(plain, given[0] * 0.25)
    torch.testing.assert_close(element, given[0] * (element != 0))


def test_another_seed_is_another_draw_and_the_same_seed_the_same():
    a, b, c = (look_at(subject(), 0.5, seed=seed).views["element-wise"].outputs[FIRST] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_by_default_the_last_activation_at_each_size_of_map_is_shown():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=7).eval()
    x = torch.randn(1, 3, 128, 128)
    found = look_at(Subject(net, x, np.zeros((8, 8)), range(7), "resnet18", "noise", False, 0.5), 0.5)
    # 64 px: the stem; 32, 16, 8 and 4 px: its four stages; four are shown
    assert list(found.layers) == [
        "02_relu",
        "15_layer1_1_relu_call2",
        "43_layer3_1_relu_call2",
        "57_layer4_1_relu_call2",
    ]
    assert set(found.layers.values()) == {"ReLU"}

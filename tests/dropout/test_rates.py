"""A checkpoint of classic dropout is loaded with its own p, or not at all."""

import io

import pytest
import torch
from torch import nn

from dropout_lab.dropout import Dropout, Placement, check_rates, install, none, rates_of


def net(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(part for layer in layers for part in (nn.Linear(4, 4), layer)))


@pytest.mark.slow
def test_rates_are_those_of_our_layers_by_name_or_path() -> None:
    model = net(nn.ReLU(), nn.Dropout(0.1), Dropout(0.2, scaling="classic"))
    (installed,) = install(model, Dropout, Placement("activations", p=0.3))
    assert rates_of(model) == {
        installed.name: {"p": 0.3, "scaling": "inverted"},
        "5": {"p": 0.2, "scaling": "classic"},
    }
    assert rates_of(nn.Linear(2, 2)) == {}


def test_rates_survive_a_checkpoint_of_plain_values() -> None:
    model, file = net(Dropout(0.2, scaling="classic")), io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "rates": rates_of(model)}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)["rates"]
    assert saved == rates_of(model)
    check_rates(model, saved)


SAME = [
    (Dropout(0.5, scaling="classic"), Dropout(0.5, scaling="classic", mask="sample")),
    (Dropout(0.5), Dropout(0.2)),
    (Dropout(0.5), Dropout(0.2, scaling="unscaled")),
    (none(0.5), Dropout(0.5)),
    (Dropout(0.0, scaling="classic"), Dropout(0.5)),
    (Dropout(0.5), nn.Identity()),
    (nn.Identity(), Dropout(0.5)),
]
DIFFERENT = [
    (Dropout(0.5, scaling="classic"), Dropout(0.2, scaling="classic")),
    (Dropout(0.5, scaling="classic"), Dropout(0.5)),
    (Dropout(0.5), Dropout(0.5, scaling="classic")),
    (Dropout(0.5, scaling="classic"), none(0.5)),
    (Dropout(0.5, scaling="classic"), nn.Identity()),
    (nn.Identity(), Dropout(0.5, scaling="classic")),
]


@pytest.mark.parametrize(("before", "after"), [*SAME, *DIFFERENT])
def test_rates_are_refused_exactly_where_the_eval_output_changes(before: nn.Module, after: nn.Module) -> None:
    old, new = net(before).eval(), net(after).eval()
    new.load_state_dict(old.state_dict())
    x = torch.randn(3, 4)
    if torch.allclose(old(x), new(x)):
        assert (before, after) in SAME
        check_rates(new, rates_of(old))
    else:
        with pytest.raises(ValueError, match=r"dropout layer '1': the checkpoint has .*so p belongs to its checkpoint"):
            check_rates(new, rates_of(old))


def test_the_reason_names_layer_and_rates() -> None:
    old, new = (net(Dropout(0.1), Dropout(p, scaling="classic")) for p in (0.5, 0.2))
    new[3].name = old[3].name = "03_relu"  # type: ignore[assignment]
    message = (
        r"layer '03_relu': the checkpoint has classic p=0.5 \(times 0.5 in eval\), this model has classic p=0.2 "
        r"\(times 0.8 in eval\); classic dropout multiplies by 1-p in eval"
    )
    with pytest.raises(ValueError, match=message):
        check_rates(new, rates_of(old))
    with pytest.raises(ValueError, match="this model has no such layer"):
        check_rates(nn.Linear(4, 4), rates_of(old))

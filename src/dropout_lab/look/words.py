"""A look in words and numbers: a table for a terminal, a record for programs, the lines on the picture."""

from typing import Any

from dropout_lab.look.views import OFF, Look

RANDOM = "RANDOM WEIGHTS: this network has learned nothing, its predictions mean nothing"


def table(look: Look) -> str:
    """A look as text for a terminal: mean activation of each layer and likeliest classes, under every condition."""
    conditions = list(look.views)
    width = max(len(name) for name in ("mean activation after", *look.layers))
    lines = [headline(look), *([RANDOM] if not look.subject.trained else []), *notes(look), ""]
    lines.append(f"{'mean activation after':<{width}}" + "".join(f"{name:>22}" for name in conditions))
    for name in look.layers:
        cells = [f"{mean(look, name, condition)}" for condition in conditions]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    lines += ["", "likeliest classes"]
    for condition in conditions:
        guesses = ", ".join(f"{name} {share:.1%}" for name, share in likeliest(look, condition))
        lines.append(f"  {condition:<14}{guesses}")
    return "\n".join(lines)


def record(look: Look) -> dict[str, Any]:
    """A look as plain values, for programs such as the report."""
    return {
        "title": headline(look),
        "alt": alternative(look),
        "weights": "trained" if look.subject.trained else "random",
        "warning": None if look.subject.trained else RANDOM,
        "image": look.subject.image,
        "p": look.p,
        "seed": look.seed,
        "layers": look.layers,
        "dropped": look.dropped,
        "sentences": notes(look),
        "means": {name: {one: mean(look, name, one) for one in look.views} for name in look.layers},
        "predictions": {condition: likeliest(look, condition) for condition in look.views},
    }


def alternative(look: Look) -> str:
    """A look in a sentence, for those who do not see the picture."""
    first = "; ".join(f"{condition}: {likeliest(look, condition, 1)[0][0]}" for condition in look.views)
    return f"{headline(look)}: activation maps with and without dropout. The likeliest class with {first}."


def headline(look: Look) -> str:
    """The headline of a look: who looks at what."""
    return f"{look.subject.title} looking at {look.subject.image}"


def notes(look: Look) -> list[str]:
    """Notes on a look: where dropout acts, and what the conditions share."""
    found = [
        f"Dropout with p = {look.p:g} after {_listed(look.dropped)}; everything else in eval mode.",
        f"One draw of masks (seed {look.seed}): element-wise and unscaled drop the same units. Means and zeros are "
        "those of the whole layer.",
    ]
    if flat := [name for name in look.dropped if name not in look.maps]:
        found.append(f"No maps to drop in {_listed(flat)}: spatial drops single units there.")
    return found


def mean(look: Look, layer: str, condition: str) -> str:
    """The mean of a layer's output and, where that is never negative, its ratio to the mean with dropout off."""
    value, off = (float(look.views[one].outputs[layer].mean()) for one in (condition, OFF))
    signed = float(look.views[OFF].outputs[layer].min()) < 0
    return f"{value:.3g}" + ("" if condition == OFF or signed or not off else f" = {value / off:.2f} x off")


def likeliest(look: Look, condition: str, count: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes and their probabilities."""
    best = look.views[condition].probabilities.sort(descending=True)
    pairs = zip(best.indices[:count].tolist(), best.values[:count].tolist(), strict=True)
    return [(look.subject.classes[index], share) for index, share in pairs]


def _listed(names: list[str]) -> str:
    """Names in a row; of many how many they are, with the first and the last."""
    text = ", ".join(names)
    return text if len(text) < 80 else f"{len(names)} layers, {names[0]} to {names[-1]}"

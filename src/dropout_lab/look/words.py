"""What the picture shows, in words and numbers."""

from typing import Any

from dropout_lab.look.views import OFF, Sight

RANDOM = "RANDOM WEIGHTS: this network has learned nothing, its predictions mean nothing"


def table(sight: Sight) -> str:
    """Mean activation of each layer and the five likeliest classes, under every condition."""
    conditions = list(sight.views)
    width = max(len(name) for name in ("mean activation after", *sight.layers))
    lines = [headline(sight), *([RANDOM] if not sight.subject.trained else []), *sentences(sight), ""]
    lines.append(f"{'mean activation after':<{width}}" + "".join(f"{name:>22}" for name in conditions))
    for name in sight.layers:
        cells = [f"{mean(sight, name, condition)}" for condition in conditions]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    lines += ["", "likeliest classes"]
    for condition in conditions:
        guesses = ", ".join(f"{name} {share:.1%}" for name, share in likeliest(sight, condition))
        lines.append(f"  {condition:<14}{guesses}")
    return "\n".join(lines)


def record(sight: Sight) -> dict[str, Any]:
    """The same as plain values, for programs such as the report."""
    return {
        "title": headline(sight),
        "alt": alternative(sight),
        "weights": "trained" if sight.subject.trained else "random",
        "warning": None if sight.subject.trained else RANDOM,
        "image": sight.subject.image,
        "p": sight.p,
        "seed": sight.seed,
        "layers": sight.layers,
        "dropped": sight.dropped,
        "sentences": sentences(sight),
        "means": {name: {one: mean(sight, name, one) for one in sight.views} for name in sight.layers},
        "predictions": {condition: likeliest(sight, condition) for condition in sight.views},
    }


def alternative(sight: Sight) -> str:
    """For those who do not see the picture."""
    first = "; ".join(f"{condition}: {likeliest(sight, condition, 1)[0][0]}" for condition in sight.views)
    return f"{headline(sight)}: activation maps with and without dropout. The likeliest class with {first}."


def headline(sight: Sight) -> str:
    """Who looks at what."""
    return f"{sight.subject.title} looking at {sight.subject.image}"


def sentences(sight: Sight) -> list[str]:
    """Where dropout acts, and what the conditions share."""
    found = [
        f"Dropout with p = {sight.p:g} after {_listed(sight.dropped)}; everything else in eval mode.",
        f"One draw of masks (seed {sight.seed}): element-wise and unscaled drop the same units. Means and zeros are "
        "those of the whole layer.",
    ]
    if flat := [name for name in sight.dropped if name not in sight.maps]:
        found.append(f"No maps to drop in {_listed(flat)}: spatial drops single units there.")
    return found


def mean(sight: Sight, layer: str, condition: str) -> str:
    """The mean of a layer's output and, where it is never negative, how many times the mean without dropout that is."""
    value, off = (float(sight.views[one].outputs[layer].mean()) for one in (condition, OFF))
    signed = float(sight.views[OFF].outputs[layer].min()) < 0
    return f"{value:.3g}" + ("" if condition == OFF or signed or not off else f" = {value / off:.2f} x off")


def likeliest(sight: Sight, condition: str, count: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes and their probabilities."""
    best = sight.views[condition].probabilities.sort(descending=True)
    pairs = zip(best.indices[:count].tolist(), best.values[:count].tolist(), strict=True)
    return [(sight.subject.classes[index], share) for index, share in pairs]


def _listed(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) < 80 else f"{len(names)} layers, {names[0]} to {names[-1]}"

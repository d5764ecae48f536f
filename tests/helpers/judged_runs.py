"""Runs of two arms, whose difference the test chooses, that claim something of it."""

from fake_runs import write_run

NOISE = (0.3, -1.1, 0.7, -0.2, 1.4, -0.9, 0.1, -0.4, 0.8, -0.7)
LESS = {"says": "b is less accurate", "metric": "test/acc", "contrast": {"b": 1, "a": -1}, "direction": "less"}
LESS |= {"matters": 0.01}
EQUAL = {"says": "same", "metric": "test/acc", "contrast": {"b": 1, "a": -1}, "direction": "equal", "margin": 0.01}


def sweep(folder, *claims, effect=0.0, noise=0.001, seeds=8, words="", **arguments):
    """Two arms, b = a + effect + noise in accuracy, that state these claims, with words behind their names."""
    config = {"verdict": {"alpha": 0.05, "claims": list(claims)}}
    for seed in range(seeds):
        base = 0.9 + 0.03 * NOISE[-1 - seed]
        for arm, acc in (("a", base), ("b", base + effect + noise * NOISE[seed])):
            final = {"test/acc": acc}
            path = folder / f"{arm}{seed}"
            name = {"arm": arm, "label": arm + words}
            write_run(path, **name, seed=seed, final=final, config=config, epochs=1, **arguments)
    return folder

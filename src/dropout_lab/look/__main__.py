"""Show what dropout does to a network's maps and predictions: `python -m dropout_lab.look model.name=vgg16`.

Draws the maps of a few layers on one image, side by side with dropout off, element-wise, spatial and unscaled, and
the five likeliest classes below. Writes `look.png` and, for `scripts/lab report`, `look.json`, unless told otherwise
into the run folder; prints the path and the numbers.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dropout_lab.cli import UserError, drop_probability, nearest, number, one_line_errors, read_arguments
from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.runs.folder import CONFIG, LOOK_PICTURE

USAGE = (
    "scripts/lab look run=DIR | model.name=vgg16 [model.weights=FILE] [image=FILE] [p=0.5] [layers=PATTERN,...] "
    "[where=layers|existing|activations|convolutions] [seed=0] [out=DIR] [ckpt=best|last|NAME]"
)
PLACES = ("layers", "existing", "activations", "convolutions")
KEYS = ("run", "model.name", "model.weights", "image", "p", "layers", "where", "seed", "out", "ckpt")


def main(arguments: Sequence[str] | None = None) -> None:
    """Look, write the picture, print the numbers."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        values = read_arguments(given, USAGE, dict.fromkeys(KEYS, "") | {"seed": "0", "ckpt": "best"})
        _require_usable(values)
        from dropout_lab.look.files import write
        from dropout_lab.look.subject import from_run, from_torchvision
        from dropout_lab.look.views import look_at
        from dropout_lab.look.words import table

        if values["run"]:
            subject = from_run(Path(values["run"]), values["ckpt"], values["image"])
        else:
            subject = from_torchvision(values["model.name"], values["model.weights"], values["image"], _seed(values))
        p = drop_probability(values["p"]) if values["p"] else subject.p
        patterns = [word for word in values["layers"].strip("[]").split(",") if word]
        look = look_at(subject, p, [pattern.strip() for pattern in patterns], values["where"], _seed(values))
        out = Path(values["out"] or (Path(values["run"]) / "look" if values["run"] else _folder(subject.title)))
        write(look, out)
        print(f"{table(look)}\n\nPicture: {out / LOOK_PICTURE}")


def _require_usable(values: dict[str, str]) -> None:
    """Refuse what can be told to be wrong without importing torch.

    Raises:
        UserError: a value that no look could use.
    """
    if bool(values["run"]) == bool(values["model.name"]):
        raise UserError(f"look needs either run=DIR or model.name=NAME; usage: {USAGE}")
    if values["run"] and values["model.weights"]:
        raise UserError("model.weights= goes with model.name=; a run has weights of its own, ckpt=best or ckpt=last")
    if values["run"] and not (Path(values["run"]) / CONFIG).is_file():
        raise UserError(f"run={values['run']}: not a run folder, it has no {CONFIG}")
    if values["where"] and values["where"] not in PLACES:
        meant = nearest(values["where"], PLACES)
        raise UserError(f"where={values['where']}: {meant}allowed: {', '.join(PLACES)}")
    number_of_test_image = values["run"] and values["image"].isdigit()
    for key in ("model.weights",) if number_of_test_image else ("image", "model.weights"):
        if values[key] and not Path(values[key]).is_file():
            also = "; give a PNG or JPEG file" + (", or the number of a test image" if values["run"] else "")
            raise UserError(f"{key}={values[key]}: no such file{also if key == 'image' else ''}")
    if values["p"]:
        drop_probability(values["p"])
    _seed(values)
    if values["out"] and Path(values["out"]).exists() and not Path(values["out"]).is_dir():
        raise UserError(f"out={values['out']}: is a file; give a folder")


def _seed(values: dict[str, str]) -> int:
    """The value of ``seed=``."""
    return int(number("seed", values["seed"], int, 0, 2**63, "a whole number >= 0"))


def _folder(title: str) -> Path:
    """Where the files of a look at no run go, unless told otherwise."""
    return REPOSITORY / "runs" / "look" / "".join(c if c.isalnum() else "-" for c in title)


if __name__ == "__main__":
    main()

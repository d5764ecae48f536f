"""Damage to a run folder, whatever it is: each command ends in order, and no number of a damaged file goes unsaid.

`FUZZ=500 pytest -n0 tests/test_damage.py` tries so many.
"""

import json
import os
import random
import re
import shutil
import traceback

import pandas as pd
import pytest
import yaml
from commands import exit_code, main_of

from dropout_lab.runs import intact

TRIES, SEED = int(os.environ.get("FUZZ", 16)), int(os.environ.get("FUZZ_SEED", 0))
RUN = ["model=mlp", "model.widths=[16]", "trainer=cpu", "trainer.max_epochs=2", "data.train_size=64", "logger=csv"]
RUN += ["data.batch_size=32", "callbacks.activation_stats.probe_masks=1", "arm=a"]
CLAIM = "{says: more is worse, metric: test/acc, contrast: {a: 1}, direction: greater, matters: 0.1}"
COMMANDS = ("evaluate", "fold", "look", "diff", "report", "verdict", "train")
READ = {  # the files that a command takes numbers from, of those whose checksum the run has left
    **dict.fromkeys(("evaluate", "fold", "look"), ("config.yaml", "checkpoints/best.ckpt")),
    **dict.fromkeys(("diff", "report", "verdict"), ("config.yaml", "metrics.csv", "activations.csv")),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that claims something, at which someone has looked; as if it had been interrupted; with other numbers."""
    folder = tmp_path_factory.mktemp("whole")
    assert exit_code(*RUN, f"+verdict.claims=[{CLAIM}]", f"hydra.run.dir={folder / 'ended'}") == 0
    main_of("dropout_lab.look").main([f"run={folder / 'ended'}"])
    for name in ("interrupted", "other"):
        shutil.copytree(folder / "ended", folder / name)
    status = json.loads((folder / "interrupted" / "status.json").read_text())
    (folder / "interrupted" / "status.json").write_text(json.dumps(status | {"status": "interrupted", "sha256": None}))
    table = pd.read_csv(folder / "other" / "metrics.csv")
    (table + 0.5 * (table.columns == "val/loss")).to_csv(folder / "other" / "metrics.csv", index=False)
    return folder


def damaged(content, rng):
    """Bytes of which a few are flipped, cut off at the end, left out or added."""
    at = rng.randrange(len(content))
    few = rng.randrange(1, 9)
    noise = bytes(rng.randrange(256) for _ in range(few))
    how = rng.choice(("flipped", "cut", "left out", "added", "text", "line", "value"))
    if how == "flipped":
        places = [rng.randrange(len(content)) for _ in range(few)]
        changed = bytearray(content)
        for place in places:
            changed[place] ^= 1 << rng.randrange(8)
        return how, bytes(changed)
    if how == "cut":
        return how, content[:at]
    if how == "left out":
        return how, content[:at] + content[at + rng.choice((1, few, 50 * few)) :]
    if how == "text":  # which is harder to tell from what was meant
        return how, content[:at] + rng.choice((b"0", b"-", b":", b" ", b"\n", b"e", b"[", b'"', b"null")) + content[at:]
    if how == "line":
        lines = content.splitlines(keepends=True)
        del lines[rng.randrange(len(lines))]
        return how, b"".join(lines)
    if how == "value" and (colons := [place.end() for place in re.finditer(rb":[ \n]|,", content)]):
        place = rng.choice(colons)
        other = rng.choice(
            (b"7", b"-1.5", b"[]", b"{}", b"[a, b]", b"{a: b}", b"null", b"true", b"text", b'"', b"1e400")
        )
        return how, content[:place] + other + b"".join(content[place:].partition(b"\n")[1:])
    return "added", content[:at] + noise + content[at:]


def of_another_kind(content, rng):
    """A configuration or status in which one value, or a whole section, is something else or not there."""
    whole = yaml.safe_load(content)
    places = [(whole, key) for key in whole]
    for node, key in places:  # which grows
        if isinstance(node[key], dict | list):
            inside = node[key]
            places += [(inside, each) for each in (inside if isinstance(inside, dict) else range(len(inside)))]
    node, key = rng.choice(places)
    if rng.random() < 0.3 and isinstance(node, dict):
        del node[key]
    else:
        node[key] = rng.choice(
            (7, -1.5, [], {}, ["a", "b"], {"a": "b"}, None, True, "text", "", 10**400, [[1]], {"1": 2})
        )
    return "of another kind", json.dumps(whole).encode()


def words(command, run, other, out):
    return {
        "evaluate": [f"run={run}"],
        "fold": [f"run={run}", f"out={out / 'weights.pt'}"],
        "look": [f"run={run}", f"out={out / 'look'}"],
        "diff": [run, other],
        "report": [run],
        "verdict": [run],
        "train": [f"resume={run}"],
    }[command]


def ended(command, given, capsys, caplog):
    """The exit code of a command in this process, and all that it said; fails where it has a traceback."""
    intact._warn.cache_clear()
    caplog.clear()
    code = 0
    try:
        main_of(f"dropout_lab.{command}").main([str(word) for word in given])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        code = 3
        traceback.print_exc()
    said = "".join(capsys.readouterr()) + caplog.text
    return code, said


def trouble(command, file, before, run, other, out, capsys, caplog):
    """What is wrong with how a command answers a damaged file; None: nothing."""
    intact_status = run.parent.name == "ended"
    code, said = ended(command, words(command, run, other, out), capsys, caplog)
    if code not in (0, 1, 2) or (code == 2 and len(re.findall("^error: ", said, re.MULTILINE)) != 1):
        return f"exit code {code}: {said[-3000:]}"
    if code == 1 and command not in ("diff", "train"):
        return f"exit code 1: {said[-3000:]}"
    if intact_status and (run / file).read_bytes() != before and file in READ.get(command, ()):
        named = file.rpartition("/")[2] in said
        if not named or (file.endswith(".ckpt") and code != 2):
            return f"exit code {code}, nothing said: {said[-1000:]}"
    return None


def files_of(run):
    kept = [path for path in run.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path.relative_to(run).as_posix() for path in kept)


@pytest.mark.slow
def test_no_damage_to_a_file_is_a_traceback_or_goes_unsaid(whole, tmp_path, capsys, caplog):
    rng, wrong = random.Random(SEED), []
    important = ("config.yaml", "metrics.csv", "activations.csv", "status.json", "checkpoints/best.ckpt")
    for number in range(TRIES):
        kind = "interrupted" if number % 3 == 2 else "ended"
        run = tmp_path / str(number) / kind / "run"
        shutil.copytree(whole / kind, run)
        file = important[number % 5] if number % 7 else rng.choice(files_of(run))
        before = (run / file).read_bytes()
        parsed = file in ("config.yaml", "status.json") and rng.random() < 0.5
        how, content = (of_another_kind if parsed else damaged)(before, rng)
        command = "train" if kind == "interrupted" and number % 2 else COMMANDS[rng.randrange(len(COMMANDS))]
        (run / file).write_bytes(content)
        if said := trouble(command, file, before, run, whole / "other", tmp_path / str(number), capsys, caplog):
            shutil.copy(run / file, tmp_path / f"damaged-{number}")
            wrong.append(f"{number}: {command}, {file} {how}: {said}")
        else:
            shutil.rmtree(tmp_path / str(number))
    assert not wrong, f"{len(wrong)} of {TRIES}\n" + "\n\n".join(wrong)

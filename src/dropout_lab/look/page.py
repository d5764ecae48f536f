"""The files a look leaves: the picture, a page of it that needs nothing else, and its numbers."""

import json
from base64 import b64encode
from html import escape
from pathlib import Path

from dropout_lab.look.picture import draw
from dropout_lab.look.views import Sight
from dropout_lab.look.words import alternative, headline, record, table

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ margin: 2rem auto; max-width: 110rem; padding: 0 1rem; font-family: system-ui, sans-serif }}
  img {{ width: 100% }}
  pre {{ overflow-x: auto }}
</style>
<img src="data:image/png;base64,{picture}" alt="{alt}">
<pre>{table}</pre>
"""


def write(sight: Sight, folder: Path) -> None:
    """Write look.png, look.html and look.json, by which a report above the folder finds the look."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(sight).savefig(folder / "look.png")
    encoded = b64encode((folder / "look.png").read_bytes()).decode()
    words = {"title": headline(sight), "alt": alternative(sight), "table": table(sight)}
    page = _PAGE.format(picture=encoded, **{key: escape(text) for key, text in words.items()})
    (folder / "look.html").write_text(page, encoding="utf-8")
    (folder / "look.json").write_text(json.dumps(record(sight), indent=1))

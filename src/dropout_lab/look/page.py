"""The picture and its numbers as one HTML file that needs nothing else."""

from base64 import b64encode
from html import escape
from pathlib import Path

from dropout_lab.look.views import Sight
from dropout_lab.look.words import headline, table

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
<img src="data:image/png;base64,{picture}" alt="{title}: activation maps and predictions with and without dropout">
<pre>{table}</pre>
"""


def write_page(sight: Sight, picture: Path, page: Path) -> None:
    """Write the page around a picture that was saved."""
    encoded = b64encode(picture.read_bytes()).decode()
    page.write_text(_PAGE.format(title=escape(headline(sight)), picture=encoded, table=escape(table(sight))))

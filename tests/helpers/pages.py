"""Pages taken apart."""

import json
import re
from html.parser import HTMLParser

HOSTILE = "</script><script>throw 1</script>&<b>"


class Tags(HTMLParser):
    """Start tags with attributes; what scripts and styles hold is not markup."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])

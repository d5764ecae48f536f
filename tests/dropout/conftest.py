"""What the tests of dropout share."""

import os
import sys
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import settings
from word_sources import row_words_of

from dropout_lab.dropout import contexts, keys, streams

SOURCES = ["numpy", "plain", *(["triton"] if os.environ.get("TRITON_INTERPRET") == "1" else [])]

settings.register_profile("busy machine", deadline=None)  # an example may take as long as the neighbours like
settings.load_profile("busy machine")


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every law holds for each way to compute the bits, and begins without the contexts of other tests."""
    row_words = row_words_of(request.param)
    for module in (keys, streams):
        monkeypatch.setattr(module, "row_words", row_words)
    monkeypatch.setattr(contexts, "_history", deque(maxlen=contexts._history.maxlen))


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that give way to each other after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)

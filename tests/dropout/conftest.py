"""What the tests of dropout share."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)  # an example may take as long as the neighbours like
settings.load_profile("busy machine")


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that give way to each other after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)

"""What the tests of dropout share."""

from hypothesis import settings

settings.register_profile("busy machine", deadline=None)  # an example may take as long as the neighbours like
settings.load_profile("busy machine")

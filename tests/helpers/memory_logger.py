"""A logger that remembers, for tests of what is logged when."""

from lightning.pytorch.loggers import Logger


class Memory(Logger):
    """Keeps each call of log_metrics."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None):
        self.calls.append((step, dict(metrics)))

    def log_hyperparams(self, *args, **kwargs):
        pass

    def with_key(self, part):
        """The calls in which a key has this part."""
        return [(step, metrics) for step, metrics in self.calls if any(part in key for key in metrics)]

    def series(self, key):
        """(step, value) of a key."""
        return [(step, metrics[key]) for step, metrics in self.calls if key in metrics]

    def last(self, key):
        return self.series(key)[-1][1]

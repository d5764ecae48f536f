"""Text: windows of characters, each to be predicted from those before it."""

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dropout_lab.data.augment import batch_key
from dropout_lab.data.base import DataModule, Place
from dropout_lab.data.rules import require, require_integer, require_share, stamp_of
from dropout_lab.data.samples import Samples


class Text(DataModule):
    """The characters of a text, in contiguous parts: training first, then validation, then test.

    A sample is a window of ``context`` characters, and its targets are the characters that follow each of them. In
    evaluation windows follow one another, and what is left at the end of a part is not measured. In training a window
    starts anywhere in its stretch of the text, drawn anew for each (seed, epoch, batch, row): an epoch reads as many
    characters as there are, in another alignment each time.

    Args:
        file: a text, UTF-8; None: the language reference's help topics that every Python brings (``pydoc_data``).
        context: T, characters in a window.
        test_fraction: of all characters.
        train_size: use so many characters at the start of the training part; None: all.
        arguments: as for :class:`~dropout_lab.data.base.DataModule`; ``val_fraction`` is of what is no test part.

    Attributes:
        characters: those of the whole text, in order; a code is a place among them.
        digest: SHA-256 of the text.

    Raises:
        FileNotFoundError, ValueError: an argument that is not what it is said to be here, a file that is no text; a
            part shorter than a window.
    """

    of_tokens = True

    def __init__(
        self,
        *,
        file: str | None = None,
        context: int = 64,
        test_fraction: float = 0.1,
        train_size: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        require_integer("context", context, 1)
        require_share("test_fraction", test_fraction, ends=False)
        require_integer("train_size", train_size, context + 1, null=True)
        require("label_noise", self.label_noise, not self.label_noise, "0: a text has no labels")
        self.context, self.test_fraction, self._train_characters = context, test_fraction, train_size
        path = None if file is None else Path(file).expanduser()
        self._text = _of_python() if path is None else _read(path, stamp_of(path))
        self.characters, self.digest = self._text.characters, self._text.digest
        self.num_classes = len(self.characters)

    @property
    def shape(self) -> tuple[int]:
        """(T,)."""
        return (self.context,)

    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Windows of the three parts."""
        size = len(self._text.codes)
        test = round(self.test_fraction * size)
        val = round(self.val_fraction * (size - test))
        ends = (size - test - val, size - test)
        train, val_part, test_part = self._text.codes.tensor_split(ends)
        if self._train_characters is not None and self._train_characters > len(train):
            raise ValueError(f"data.train_size={self._train_characters}: must be at most {len(train)}, or null for all")
        return (
            self._windows(train[: self._train_characters], "training", 2 * self.context - 1),
            self._windows(val_part, "validation", self.context),
            self._windows(test_part, "test", self.context),
        )

    def limited(self, train: Samples) -> Samples:
        """The training windows, or those of one batch; how many characters they are of is said by ``train_size``."""
        return train if self.train_size is None else train.take(slice(self.train_size))

    def training_batch(self, inputs: Tensor, targets: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Windows (N, T) and their targets, each from anywhere in its stretch."""
        drawn = batch_key(self.seed, *place).numbers(len(inputs), inputs.device)[:, :1]
        start = drawn * (inputs.shape[1] - self.context + 1) >> 32  # each as likely, to 2^-32
        index = start + torch.arange(self.context, device=inputs.device)
        return inputs.gather(1, index).long(), targets.gather(1, index).long()

    def prepare(self, inputs: Tensor) -> Tensor:
        """The first window (N, T) of each stretch."""
        return inputs[:, : self.context].long()

    def measured_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The first window (N, T) of each stretch, and its targets."""
        return self.prepare(inputs), self.prepare(targets)

    def _windows(self, codes: Tensor, part: str, length: int) -> Samples:
        """Stretches of so many characters that begin T apart, with what follows each character; views of the text."""
        if len(codes) <= length:
            raise ValueError(
                f"the {part} part has {len(codes)} characters, too few for a window of data.context={self.context}"
            )
        inputs, targets = (each.unfold(0, length, self.context) for each in (codes[:-1], codes[1:]))
        return Samples(inputs, targets)


class _Text(NamedTuple):
    codes: Tensor
    characters: str
    digest: str


@functools.lru_cache(maxsize=2)
def _read(path: Path, stamp: tuple[int, int]) -> _Text:
    """A file as it was at a time: the jobs of a sweep have one."""
    try:
        return _coded(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"data.file={path}: must be a text in UTF-8, and is not at byte {error.start}") from error


@functools.lru_cache(maxsize=1)
def _of_python() -> _Text:
    from pydoc_data.topics import topics

    return _coded("\n".join(topics[name] for name in sorted(topics)))


def _coded(text: str) -> _Text:
    characters = "".join(sorted(set(text)))
    place = {character: code for code, character in enumerate(characters)}
    kind = torch.uint8 if len(characters) <= 256 else torch.int32
    codes = torch.tensor([place[character] for character in text], dtype=kind)
    return _Text(codes, characters, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())

"""Columns: the numbers that a run measures, as tables, pictures, dashboards and checkpoints need to know them."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

LONGEST = 80  # characters at the head of a table


class Column(NamedTuple):
    """A number that is measured, declared once: by a module, or by a callback that logs one.

    Attributes:
        key: of a module's, as it is logged for each part of the data, ``val/<key>``, ``test/<key>``; of a callback's,
            all that it is logged as, ``auroc/test``.
        title: what it is called.
        unit: behind the title; "%" shows a fraction as a percentage.
        decimals: as it is printed, in its unit.
        better: whether more or less of it is wanted; None: neither.
        short: the title at the head of a table; "": as it is.
        shown: whether the terminal's table has it; the others have all.
    """

    key: str
    title: str
    unit: str = ""
    decimals: int = 3
    better: Literal["more", "less"] | None = "less"
    short: str = ""
    shown: bool = True

    @property
    def brief(self) -> str:
        """The title at the head of a table."""
        return self.short or self.title

    @property
    def factor(self) -> int:
        """By what a number is multiplied to be in its unit."""
        return 100 if self.unit == "%" else 1

    def of(self, part: str) -> str:
        """The metric of a part of the data; of a callback's column there is one."""
        return self.key if "/" in self.key else f"{part}/{self.key}"

    @property
    def tested(self) -> bool:
        """Whether it is a number of the test part, too; of a callback's, the key names no other part."""
        return not {"train", "train_eval", "val", "gap"}.intersection(self.key.split("/"))

    @property
    def curves(self) -> dict[str, str]:
        """What is logged over training: metric -> title, without the unit."""
        if "/" in self.key:
            return {} if "test" in self.key.split("/") else {self.key: self.title}
        minimised = {"train/loss": "what is minimised (dropout on)"} if self.key == "loss" else {}
        return {
            self.of("val"): f"validation {self.title}",
            self.of("train_eval"): f"training {self.title} (dropout off)",
            **minimised,
            self.of("gap"): f"gap in {self.title} (validation - training)",
        }

    def named(self, what: str) -> str:
        """A title with its unit, as an axis has it; ``what`` stands in front."""
        return " ".join(filter(None, (what, self.title))) + (f", {self.unit}" if self.unit else "")


OF_CLASSIFICATION = (
    Column("acc", "accuracy", "%", 2, "more", "acc"),
    Column("loss", "NLL", "nats"),
)


def declared(configs: Iterable[Mapping[str, Any]]) -> list[Column]:
    """The columns that runs declare in their configurations, each once; those of before did not, and classified."""
    found: dict[str, Column] = {}
    for config in configs:
        for each in config.get("columns") or OF_CLASSIFICATION:
            column = each if isinstance(each, Column) else Column(**each)
            cut = {name: getattr(column, name)[:LONGEST] for name in ("title", "unit", "short")}
            found.setdefault(column.key, column._replace(**cut))
    return list(found.values()) or [*OF_CLASSIFICATION]

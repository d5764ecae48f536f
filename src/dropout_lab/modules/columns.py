"""Columns: the numbers that a module measures, as tables, pictures, dashboards and checkpoints need to know them."""

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """A number that is measured of every part of the data, declared once.

    Attributes:
        key: as it is logged, ``val/<key>``, ``test/<key>``.
        title: what it is called.
        unit: behind the title; "%" shows a fraction as a percentage.
        decimals: as it is printed, in its unit.
        better: whether more or less of it is wanted.
        shown: whether the table in the terminal has it; other tables have all.
    """

    key: str
    title: str
    unit: str = ""
    decimals: int = 3
    better: Literal["more", "less"] = "less"
    shown: bool = True

"""The values that the readers of layouts return: a layout, and notes on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Note:
    """One sentence on how a cohort was read.

    `names_ids` is true where the text quotes an id, a file or folder, or a condition that may name
    a subject: such a note is left out where ids are replaced by pseudonyms. `about` says what other
    parts read from it: what was left out, where the classes or the ids come from.
    """

    text: str
    names_ids: bool = False
    about: Literal["", "left out", "classes", "ids"] = ""

    def __str__(self) -> str:
        """Return the sentence."""
        return self.text


@dataclass(frozen=True)
class Layout:
    """The scans of a recognised layout: one row per scan, with every column that its table offers.

    `label` names the column of classes and `classes` the values of each, where the layout has them.
    `hint` says what is missing where it has none. A column `given` names the subset (train, val or
    test) of each scan where folders divide them.
    """

    name: str
    scans: "pd.DataFrame"
    label: str | None = None
    classes: Mapping[str, Sequence[str]] | None = None
    notes: list[Note] = field(default_factory=list)
    hint: str = ""

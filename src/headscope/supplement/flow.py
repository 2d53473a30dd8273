"""The way from scans to subsets, with what was left out and why: in rows, and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headscope.figures import style
from headscope.record import SUBSETS, Run
from headscope.supplement.study import Study, count_classes
from headscope.text import count

Kind = Literal["step", "left out", "subset"]
MOST_REASONS: Final = 4
REASON: Final = 90  # characters of a reason
TITLES: Final = {"train": "Training", "val": "Validation", "test": "Test"}
CHARACTER: Final = 1.36 * style.MM  # width of a letter of 7 pt, with a margin
GAP: Final = 4.5 * style.MM  # between boxes
PAD: Final = 1.2 * style.MM  # within them


@dataclass(frozen=True)
class Box:
    """One box of the diagram: its title, its further lines and the numbers in them by unit."""

    kind: Kind
    title: str
    lines: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()


def flow(study: Study) -> list[Box]:
    """Return the boxes of the diagram, from the first scan to the subsets of the main split.

    A box of what was left out stands after the step from which it is left out.
    """
    run, table = study.main, study.main.predictions
    boxes: list[Box] = []
    scans, failed = study.slices.get("scans"), len(study.problems)
    layout = study.slices.get("layout")
    source = "Pictures" if (run.settings.get("slicing") or {}).get("of") == "pictures" else "Scans"
    if layout:
        boxes.append(Box("step", f"Data: {layout}"))
    if study.left_out:
        boxes.append(Box("left out", "Left out", tuple(study.left_out)))
    taken = Box("step", f"{source}: their number is not on record")
    if scans is not None:
        number = (source.lower(), int(scans))
        taken = Box("step", f"{source} with a class: {count(scans)}", (), (number,))
    boxes.append(taken)
    if failed:
        boxes.append(_unusable(study, failed, source.lower()))
    counts = _units_of(run, table)
    text = ", ".join(_amount(value, unit) for unit, value in counts)
    boxes.append(Box("step", "Slices taken", (text,), tuple(counts)))
    boxes += [_subset(study, name) for name in SUBSETS]
    return boxes


def flow_frame(boxes: Sequence[Box]) -> pd.DataFrame:
    """Return the boxes as rows: one per count, and one per reason."""
    rows = []
    for number, box in enumerate(boxes, start=1):
        parts = [(*pair, "") for pair in box.counts or [("", None)] * (box.kind == "step")]
        parts += [("", None, line) for line in box.lines if box.kind == "left out"]
        rows += [(number, box.kind, box.title, *part) for part in parts]
    columns = ["box", "kind", "title", "unit", "count", "reason"]
    return pd.DataFrame(rows, columns=columns).astype({"count": "Int64"})


def _units_of(run: Run, rows: pd.DataFrame) -> list[tuple[str, int]]:
    """Count subjects and sessions, where they are named, and slices."""
    if not run.named:
        return [("slices", len(rows))]
    subjects, visits = (
        rows["subject_id"].nunique(),
        rows.drop_duplicates(["subject_id", "session_id"]),
    )
    return [("subjects", int(subjects)), ("sessions", len(visits)), ("slices", len(rows))]


def _unusable(study: Study, failed: int, unit: str) -> Box:
    """Return the box of scans that could not be used, by reason, the commonest first."""
    reasons = study.problems["reason"].astype(str).value_counts(sort=True)
    lines = [f"{count(n)}: {_shorten(text)}" for text, n in reasons[:MOST_REASONS].items()]
    if len(reasons) > MOST_REASONS:
        rest = int(reasons[MOST_REASONS:].sum())
        lines.append(f"{count(rest)}: other reasons (problems.tsv)")
    title = f"Could not be used: {count(failed)}"
    return Box("left out", title, tuple(lines), ((unit, failed),))


def _amount(value: int, unit: str) -> str:
    """Return '1 subject of AD', '2 subjects of AD'."""
    noun, of, of_what = unit.partition(" ")
    return f"{count(value)} {noun.removesuffix('s') if value == 1 else noun}{of}{of_what}"


def _shorten(text: object) -> str:
    words = str(text)
    return words if len(words) <= REASON else f"{words[: REASON - 1]}…"


def _subset(study: Study, subset: str) -> Box:
    run, rows = study.main, study.main.predicted(subset)
    counts = _units_of(run, rows)
    unit = "subjects" if run.named else "slices"
    classes = [(f"{unit} of {name}", n) for name, n in count_classes(run, rows).items()]
    lines = [_amount(value, unit) for unit, value in [*counts, *classes]]
    fold = f", fold {run.setting.fold_text}" if run.setting.fold_text else ""
    return Box("subset", f"{TITLES[subset]}{fold}", tuple(lines), (*counts, *classes))


@style.apply_style
def plot_flow(boxes: Sequence[Box], width: float = style.COLUMN) -> Figure:
    """Draw the diagram: steps below each other, what was left out on the right, subsets last.

    width is in inches.
    """
    steps = [box for box in boxes if box.kind != "subset"]
    subsets = [box for box in boxes if box.kind == "subset"]
    middle = 0.52 * width
    widths = {"step": middle - GAP / 2, "left out": width - middle - GAP / 2}
    share = (width - (len(subsets) - 1) * GAP / 2) / max(len(subsets), 1)
    placed = [(box, _text(box, widths[box.kind])) for box in steps]
    below = [(box, _text(box, share)) for box in subsets]
    tall = max((_height(text) for _, text in below), default=0.0)
    height = sum(_height(text) + GAP for _, text in placed) + tall + 2 * PAD
    figure = style.new_figure(width, height)
    figure.set_layout_engine(None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    y, last = height - PAD, None
    for box, text in placed:
        size = _height(text)
        x = 0.01 * width if box.kind == "step" else middle + GAP / 2
        _draw_box(ax, x, y - size, widths[box.kind] - 0.02 * width, size, text)
        centre = 0.01 * width + widths["step"] / 2
        if box.kind == "left out":
            _arrow(ax, (centre, y - size / 2), (x, y - size / 2))
        elif last is not None:
            _arrow(ax, (centre, last), (centre, y))
        last = y - size if box.kind == "step" else last
        y -= size + GAP
    for k, (_, text) in enumerate(below):
        x = k * (share + GAP / 2)
        _draw_box(ax, x + 0.01 * width, y - tall, share - 0.02 * width, tall, text)
        if last is not None:
            start = (0.01 * width + widths["step"] / 2, last)
            _arrow(ax, start, (x + share / 2, y))
    return figure


def _text(box: Box, width: float) -> str:
    room = max(8, int((width - 2 * PAD - 0.02 * width) / CHARACTER))
    most = 2 if box.kind == "subset" else 12  # lines: a name of a class may be long
    return "\n".join(style.fold(line, room, most) for line in (box.title, *box.lines))


def _height(text: str) -> float:
    return (text.count("\n") + 1) * style.LINE + 2 * PAD


def _draw_box(ax: Axes, x: float, y: float, width: float, height: float, text: str) -> None:
    frame = Rectangle((x, y), width, height, facecolor="white", edgecolor=style.INK, linewidth=0.6)
    ax.add_patch(frame)
    ax.text(x + PAD, y + height - PAD, style.plain(text), va="top", linespacing=1.25)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "linewidth": 0.6, "color": style.INK, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look, zorder=0)

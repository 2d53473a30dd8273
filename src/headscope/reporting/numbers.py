"""Numbers as the page sets them, each with its full value, run and name for whoever checks."""

from collections.abc import Sequence
from math import isnan

from markupsafe import Markup

from headscope.metrics.intervals import LEVEL
from headscope.text import FORMATS

CONFIDENCE = f"{100 * LEVEL:.0f}%"  # of intervals, as sentences name it
NUMBER = Markup(
    '<span class="num" data-run="{run}" data-quantity="{quantity}" data-value="{value}"'
    "{pair}>{text}</span>"
)


def number(
    value: float | int | None,
    run: str,
    quantity: str,
    form: str = "significant",
    pair: tuple[int, int] | None = None,
) -> Markup:
    """Return a number as HTML: rounded to the eye, whole in `data-value`.

    `form` is one of `headscope.text.FORMATS`. None counts as NaN: 'undefined'.
    """
    value = float("nan") if value is None else value
    return numbers([value], run, quantity, FORMATS[form](value), pair)


def say(sentence: str, *values: object, **named: object) -> Markup:
    """Return a sentence with values in its places; text among them is escaped."""
    return Markup(sentence).format(*values, **named)  # noqa: S704


def numbers(
    values: Sequence[float], run: str, quantity: str, text: str, pair: tuple[int, int] | None = None
) -> Markup:
    """Return a text that stands for several numbers, such as the equation of a fit."""
    whole = " ".join(repr(getattr(value, "item", lambda value=value: value)()) for value in values)
    classes = Markup(' data-pair="{},{}"').format(*pair) if pair else ""
    return NUMBER.format(run=run, quantity=quantity, value=whole, text=text, pair=classes)


def bounded(
    value: float | None,
    ends: Sequence[float | None],
    run: str,
    quantity: str,
    form: str,
    way: str = "",
    pair: tuple[int, int] | None = None,
) -> Markup:
    """Return a number with its interval (low, high) under it, if it has one.

    `way` tells in the names of the ends by which way they were found, as '_wilson'.
    """
    low, high = (float("nan") if end is None else end for end in ends)
    cell = number(value, run, quantity, form, pair)
    if isnan(low) or isnan(high):
        return cell
    return Markup("{} <small>{}{}{}</small>").format(
        cell,
        number(low, run, f"{quantity}{way}_low", form, pair),
        " to " if low < 0 else "–",
        number(high, run, f"{quantity}{way}_high", form, pair),
    )

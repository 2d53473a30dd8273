"""Numbers as the page sets them, each carrying its full value, run and name for whoever checks."""

from collections.abc import Sequence

from markupsafe import Markup

from headscope.text import FORMATS

CELL = Markup(
    '<span class="num" data-run="{run}" data-quantity="{quantity}" data-value="{value}"'
    "{pair}>{text}</span>"
)


def number(
    value: float | int | None,
    run: str,
    quantity: str,
    show: str = "significant",
    pair: tuple[int, int] | None = None,
) -> Markup:
    """Return a number as HTML: rounded to the eye, whole in `data-value`.

    `show` is one of `headscope.text.FORMATS`. None counts as NaN: 'undefined'.
    """
    value = float("nan") if value is None else value
    return CELL.format(
        run=run, quantity=quantity, value=repr(value), text=FORMATS[show](value), pair=_pair(pair)
    )


def numbers(
    values: Sequence[float], run: str, quantity: str, text: str, pair: tuple[int, int] | None = None
) -> Markup:
    """Return a text that stands for several numbers, such as the equation of a fit."""
    whole = " ".join(repr(value) for value in values)
    return CELL.format(run=run, quantity=quantity, value=whole, text=text, pair=_pair(pair))


def _pair(pair: tuple[int, int] | None) -> Markup:
    return Markup(' data-pair="{},{}"').format(*pair) if pair else Markup()

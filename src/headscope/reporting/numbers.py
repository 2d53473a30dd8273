"""Numbers as the page sets them, each carrying its full value, run and name for whoever checks."""

from collections.abc import Callable, Sequence
from math import isinf, isnan

from markupsafe import Markup

from headscope.analysis import format_fraction, format_percent, format_seconds

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
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

    `show` is one of `SHOWN`. None counts as NaN: 'undefined'.
    """
    value = float("nan") if value is None else value
    return CELL.format(
        run=run, quantity=quantity, value=repr(value), text=SHOWN[show](value), pair=_pair(pair)
    )


def numbers(
    values: Sequence[float], run: str, quantity: str, text: str, pair: tuple[int, int] | None = None
) -> Markup:
    """Return a text that stands for several numbers, such as the equation of a fit."""
    whole = " ".join(repr(value) for value in values)
    return CELL.format(run=run, quantity=quantity, value=whole, text=text, pair=_pair(pair))


def significant(value: float, digits: int = 3) -> str:
    """Return three significant digits; very small and large ones as 1.46 × 10⁻⁷."""
    if isnan(value) or isinf(value):
        return _special(value)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if value == 0:
        text = "0"
    elif -4 <= power < 6:
        text = f"{value:,.{max(digits - 1 - power, 0)}f}"
    else:
        text = f"{mantissa} × 10{str(power).translate(SUPERSCRIPT)}"
    return text.replace("-", "−")


def probability(value: float) -> str:
    """Return a p-value, not pretending to digits that nobody believes."""
    if isnan(value):
        return _special(value)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_value(value: float) -> str:
    """Return a p-value with its letter: 'p < 0.001' or 'p = 0.031'."""
    text = probability(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _fixed(digits: int) -> Callable[[float], str]:
    def show(value: float) -> str:
        if isnan(value) or isinf(value):
            return _special(value)
        text = f"{value:,.{digits}f}"
        return f"{0:.{digits}f}" if float(text.replace(",", "")) == 0 else text.replace("-", "−")

    return show


def _special(value: float) -> str:
    return "undefined" if isnan(value) else "∞" if value > 0 else "−∞"


def _pair(pair: tuple[int, int] | None) -> Markup:
    return Markup(' data-pair="{},{}"').format(*pair) if pair else Markup()


SHOWN: dict[str, Callable[[float], str]] = {
    "significant": significant,
    "brief": lambda value: significant(value, 1),
    "probability": probability,
    "p": p_value,
    "percent": format_percent,
    "points": _fixed(1),
    "fraction": lambda value: format_fraction(value).replace("-", "−"),
    "time": format_seconds,
    "count": _fixed(0),
    "correlation": _fixed(4),
    "factor": _fixed(6),
}

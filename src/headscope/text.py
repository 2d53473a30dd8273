"""Numbers and names as text: every format that a table, a figure, a page or a message uses."""

import os
import re
from collections.abc import Callable
from math import isfinite, isnan
from numbers import Integral, Real
from typing import Any

MISSING = "–"
UNDEFINED = "undefined"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# control characters, line separators, marks that turn the direction of writing, bytes of no UTF-8
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)


def show(value: object, form: str = "plain") -> str:
    """Return a value as text, in a form of `FORMATS`.

    Text stays as it is, True and False read yes and no, None counts as NaN.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, Real):
        return FORMATS[form](float("nan") if value is None else value)
    return str(value)


def printable_name(path: str | os.PathLike[str]) -> str:
    r"""Return a path or name as text for one line of a file or terminal.

    Bytes that are no UTF-8, control characters and line breaks read \xe9, \x1b and \n, as Python
    writes them. What is printable stays as it is, so a name that was escaped stays the same.
    """
    return _UNPRINTABLE.sub(_escape, os.fspath(path))


def escape_formula(value: Any) -> Any:
    """Return a cell of a table that no spreadsheet takes for a formula; numbers stay as they are.

    Text that begins with =, +, -, @, a tab or a carriage return gets an apostrophe before it, as
    does text that would be taken for such a cell; `unescape_formula` returns the value.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def unescape_formula(value: Any) -> Any:
    """Return what `escape_formula` made a cell of."""
    return value[1:] if isinstance(value, str) and _ESCAPED.match(value) else value


def printable(text: str) -> str:
    """Return text for a terminal or a file as `printable_name` writes it, lines and tabs kept."""
    return _UNPRINTABLE.sub(lambda sign: sign[0] if sign[0] in "\n\t" else _escape(sign), text)


def significant(value: float, digits: int = 3) -> str:
    """Return a number to some significant digits; very small and large ones as 1.46 × 10⁻⁷."""
    if not isfinite(value):
        return _special(value)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if value == 0:
        text = "0"
    elif -4 <= power < 6:
        text = f"{value:,.{max(digits - 1 - power, 0)}f}"
    else:
        text = f"{mantissa} × 10{str(power).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def plain(value: float) -> str:
    """Return whole numbers as counts, others to four significant digits."""
    return count(value) if isinstance(value, Integral) else significant(float(value), 4)


def probability(value: float) -> str:
    """Return a p-value, without digits that no number of draws supports."""
    if isnan(value):
        return UNDEFINED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_value(value: float) -> str:
    """Return a p-value with its letter: 'p < 0.001' or 'p = 0.031'."""
    text = probability(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals; what rounds to zero has no sign."""
    if not isfinite(value):
        return _special(value)
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def count(value: float) -> str:
    """Return a whole number, thousands apart: 12,345."""
    return fixed(value, 0)


def points(value: float) -> str:
    """Return percentage points with one decimal."""
    return fixed(value, 1)


def signed_points(value: float) -> str:
    """Return percentage points with one decimal and their sign: '+1.2', '−0.3', '0.0'."""
    text = points(value)
    return f"+{text}" if float(f"{value:.1f}") > 0 else text


def percent(fraction: float | None) -> str:
    """Return a fraction as a percentage with one decimal, without the sign: 0.932 is '93.2'."""
    return MISSING if fraction is None or not isfinite(fraction) else f"{100 * fraction:.1f}"


def fraction(value: float | None) -> str:
    """Return a fraction with three decimals, as areas under the curve are printed."""
    return MISSING if value is None or isnan(value) else fixed(value, 3)


def threshold(value: float) -> str:
    """Return a probability to cut at; what would round to 0 or 1 cuts elsewhere: '< 0.001'."""
    if 0 < value < 0.0005:
        return "< 0.001"
    return "> 0.999" if 0.9995 <= value < 1 else fraction(value)


def minutes(seconds: float | None) -> str:
    """Return a duration as min:sec, as in Table 2: 244 s is '4:04'."""
    if seconds is None or not isfinite(seconds):
        return MISSING
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02d}"


def interval(low: str, high: str) -> str:
    """Join the ends of an interval, as text: '0.1–0.3', but '−0.1 to 0.3' and '0.0 to +0.3'."""
    signed = low.startswith(("−", "+")) or high.startswith(("−", "+"))
    return f"{low} to {high}" if signed else f"{low}–{high}"


def _escape(character: re.Match[str]) -> str:
    code = ord(character[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character[0].encode("unicode_escape").decode()


def _special(value: float) -> str:
    return UNDEFINED if isnan(value) else "∞" if value > 0 else "−∞"


FORMATS: dict[str, Callable[[Any], str]] = {
    "plain": plain,
    "significant": significant,
    "brief": lambda value: significant(value, 1),
    "probability": probability,
    "p": p_value,
    "percent": percent,
    "points": points,
    "signed": signed_points,
    "fraction": fraction,
    "threshold": threshold,
    "time": minutes,
    "count": count,
    "correlation": lambda value: fixed(value, 4),
    "factor": lambda value: fixed(value, 6),
}

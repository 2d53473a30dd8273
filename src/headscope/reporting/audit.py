"""`write_audit`: what an audit found → one self-contained HTML page."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from headscope.files import write_text
from headscope.reporting.templates import render

KINDS: Final = {
    "identical": "identical: every pixel is equal",
    "copy": "copy: turned, compressed or brightened",
    "alike": "one head: likely one person, scanned twice",
}


def write_audit(
    page: Path, facts: Mapping[str, Any], pictures: Sequence[NDArray[np.uint8] | None]
) -> Path:
    """Write the page of an audit; return its path.

    facts are those of `Audit.to_dict`; pictures holds the middle slices (2, H, W) of each of its
    pairs, or None where a pair is listed without.
    """
    shown = [
        {**pair, "pictures": [picture_source(slice_) for slice_ in slices]}
        for pair, slices in zip(facts["pairs"], pictures, strict=True)
        if slices is not None
    ]
    context = dict(facts) | {
        "name": Path(facts["path"]).resolve().name,
        "shown": shown,
        "kinds": KINDS,
        "axis": _axis,
    }
    write_text(page, render("audit.html.j2", context))
    return page


def picture_source(pixels: NDArray[np.uint8]) -> str:
    """Return a slice (H, W) as the data URI of a PNG."""
    stream = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")


def _axis(low: float, value: float, high: float, colour: str) -> Markup:
    """Draw an AUC with its interval on an axis from 0 to 1, the line of chance at 0.5."""
    return Markup(
        '<svg viewBox="-6 0 212 18" width="212" height="18" role="img" '
        'aria-label="{value:.2f}, {low:.2f} to {high:.2f}">'
        '<line x1="0" x2="200" y1="9" y2="9" stroke="#e9ebef"/>'
        '<line x1="100" x2="100" y1="1" y2="17" stroke="#56606c" stroke-dasharray="2 2"/>'
        '<line x1="{a:.1f}" x2="{b:.1f}" y1="9" y2="9" stroke="{colour}" stroke-width="3"/>'
        '<circle cx="{c:.1f}" cy="9" r="4.5" fill="{colour}"/></svg>'
    ).format(
        value=value, low=low, high=high, a=200 * low, b=200 * high, c=200 * value, colour=colour
    )

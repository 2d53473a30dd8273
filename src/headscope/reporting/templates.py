"""Pages are set from the templates beside this file; what they show is escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

HERE: Final = Path(__file__).parent


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return the page that `template` makes of `context`; a name it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)

"""The list of architectures, and whose pretrained weights are on this machine."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from headscope.errors import InputError
from headscope.models.pretrained import find_published, how_to_get
from headscope.models.sources import published_data
from headscope.models.zoo import TABLE, Architecture, all_names, find_architecture

NONE_PUBLISHED = "none published"


@dataclass(frozen=True)
class Listing:
    """One architecture with its weights: their `file` on this machine, or None.

    weights names them, and `get` says how to get them.
    """

    architecture: Architecture
    weights: str
    file: Path | None
    get: str

    @property
    def trained_on(self) -> str:
        """What its published weights were trained on; '–' where there are none."""
        return "–" if self.weights == NONE_PUBLISHED else published_data(self.architecture)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON; those of the architecture as `Architecture` has them."""
        entry = self.architecture
        names = ("size", "mean", "std", "classifier", "features", "parameters", "licence", "note")
        facts = {name: getattr(entry, name) for name in names}
        return {
            "architecture": entry.name,
            **(facts | {"mean": list(entry.mean), "std": list(entry.std)}),
            "trained_on": self.trained_on,
            "weights": self.weights,
            "file": None if self.file is None else str(self.file),
            "get": self.get,
        }


def list_models(pattern: str | None = None) -> list[Listing]:
    """Return headscope's own table of architectures, or all whose name matches `pattern`.

    No network is built, and no connection is opened.

    Parameters
    ----------
    pattern
        A part of a name ("resnet", "timm/vit_tiny"), or one with wildcards ("timm/*dino*").

    Raises
    ------
    InputError
        No name matches.

    Examples
    --------
    >>> [listing.architecture.name for listing in hs.list_models("timm/test_resnet")]
    ['timm/test_resnet']
    """
    names = list(TABLE) if pattern is None else [n for n in all_names() if _matches(n, pattern)]
    if not names:
        raise InputError(
            f"No architecture matches {pattern!r}: give a part of a torchvision name, of a timm "
            f"one (timm/NAME), or wildcards as in 'timm/*dino*'."
        )
    return [_listing(find_architecture(name)) for name in names]


def _matches(name: str, pattern: str) -> bool:
    wild = any(character in pattern for character in "*?[")
    return fnmatchcase(name, pattern) if wild else pattern in name


def _listing(architecture: Architecture) -> Listing:
    published = find_published(architecture)
    get = how_to_get(architecture, published)
    if published is None:
        return Listing(architecture, NONE_PUBLISHED, None, get)
    return Listing(architecture, published.text, published.file, "" if published.file else get)

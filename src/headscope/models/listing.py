"""The architectures there are, and whose pretrained weights lie on this machine."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from headscope.errors import InputError
from headscope.models.pretrained import find_published, how_to_get
from headscope.models.zoo import TABLE, Architecture, all_names, find_architecture


@dataclass(frozen=True)
class Listing:
    """One architecture with its weights: `file` where they lie on this machine, or None.

    `get` says how to get them. size is the side in pixels the network was trained at; mean and std
    normalise pixels in 0 to 1; classifier is the path of its final layer, features the width D
    that this reads, parameters their number with the classes of the published weights (each
    None where only building the network would tell).
    """

    architecture: Architecture
    weights: str
    file: Path | None
    get: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        entry = self.architecture
        return {
            "architecture": entry.name,
            "size": entry.size,
            "mean": list(entry.mean),
            "std": list(entry.std),
            "classifier": entry.classifier,
            "features": entry.features,
            "parameters": entry.parameters,
            "licence": entry.licence,
            "note": entry.note,
            "weights": self.weights,
            "file": None if self.file is None else str(self.file),
            "get": self.get,
        }


def list_models(pattern: str | None = None) -> list[Listing]:
    """Return headscope's own table of architectures, or all whose name matches `pattern`.

    pattern: a part of a name ("resnet", "timm/vit_tiny") or one with wildcards
    ("timm/*dino*"). No network is built and none is used.

    Raises
    ------
    InputError
        No name matches.
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


def _listing(entry: Architecture) -> Listing:
    found = find_published(entry)
    get = how_to_get(entry, found)
    if found is None:
        return Listing(entry, "none published", None, get)
    return Listing(entry, found.text, found.file, "" if found.file else get)

"""How slices are taken: one value from the command line to the store, `run.toml` and back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from headscope.errors import InputError
from headscope.scans.volume import PLANES, check_orientation

GEOMETRY: Final = 3  # raised when the same options come to give other pixels
AUTO: Final = "vertex:70mm"
MOST: Final = 10_000  # slices of a scan
LARGEST: Final = 4096  # pixels
KEYS: Final = {"orientation": "analyze_orientation"}  # names in settings, where they differ


@dataclass(frozen=True)
class SliceSpec:
    """Which slices of a scan are taken, and how they are drawn.

    Parameters
    ----------
    plane
        axial, coronal, sagittal, or all: `count` slices of each.
    count, size
        Slices of a plane; side of a slice in pixels.
    centre
        volume (the middle of the grid, as in the paper), foreground (the middle of what stands out
        of the background), or vertex:70mm: the point so far below the top of the head, and in the
        middle of the head above it, in every plane. auto is vertex:70mm.
    spacing_mm
        Distance between slices in mm; None for consecutive slices.
    volume
        Which volume of a 4-D file, from 0; None where files hold one.
    orientation
        The orientation of files that store none (Analyze 7.5), such as LAS; auto is that of the
        layout (OASIS-1), of the header's orient field, or LAS.
    window
        The intensities that become black and white, as those in Hounsfield units of a CT; None for
        percentiles of the foreground. Pictures of 8 bits stay as they are.

    Raises
    ------
    InputError
        An option has no meaning.
    """

    plane: str = "axial"
    count: int = 30
    size: int = 224
    centre: str = "auto"
    spacing_mm: float | None = None
    volume: int | None = None
    orientation: str = "auto"
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Resolve auto, and check every option."""
        if self.centre == "auto":
            object.__setattr__(self, "centre", AUTO)
        planes_of(self.plane)
        for name, value, most in (("Count", self.count, MOST), ("Size", self.size, LARGEST)):
            if not 1 <= value <= most:
                raise InputError(f"{name} {value} of slices must be 1 or more, at most {most}.")
        if self.spacing_mm is not None and not 0 < self.spacing_mm <= 100:
            raise InputError(
                f"Spacing {self.spacing_mm:g} mm of slices must be above 0 and at most 100."
            )
        check_orientation(self.orientation)
        if self.window is not None:
            object.__setattr__(self, "window", _window(self.window))
        depth_mm = self.depth_mm
        if depth_mm is not None and not 0 <= depth_mm <= 1000:  # a NaN fails too
            raise InputError(
                f"Unknown centre {self.centre!r}: choose volume, foreground, or a depth below the "
                "vertex such as vertex:70mm."
            )

    @property
    def planes(self) -> tuple[str, ...]:
        """The planes that are taken, in the order of their slices."""
        return planes_of(self.plane)

    @property
    def depth_mm(self) -> float | None:
        """The depth of the centre below the vertex in mm, or None where it names no vertex."""
        if self.centre in ("volume", "foreground"):
            return None
        kind, _, depth = self.centre.partition(":")
        try:
            return float(depth.removesuffix("mm")) if kind == "vertex" else math.nan
        except ValueError:
            return math.nan

    def as_settings(self) -> dict[str, Any]:
        """Return the options by the names that settings, stores and records use."""
        settings = {KEYS.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return settings | {"window": None if self.window is None else list(self.window)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "SliceSpec":
        """Return the options that are among `settings`, by the names of `as_settings`."""
        keys = {f.name: KEYS.get(f.name, f.name) for f in fields(cls)}
        return cls(**{name: settings[key] for name, key in keys.items() if key in settings})


def _window(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a window, the lower first."""
    try:
        low, high = map(float, values)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"Unknown window {values!r}: choose two intensities, the lower first, such as 0,80."
        )
    return low, high


def planes_of(plane: str) -> tuple[str, ...]:
    """Return the planes that a setting names: all is all three."""
    if plane == "all":
        return tuple(sorted(PLANES))
    if plane not in PLANES:
        raise InputError(f"Unknown plane {plane!r}: choose axial, coronal, sagittal or all.")
    return (plane,)

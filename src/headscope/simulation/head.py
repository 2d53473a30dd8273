"""One simulated head: the MNI152 template, bent into a new subject and aged by a severity.

The anatomy is the template that nilearn ships (ICBM 2009a, nonlinear symmetric; Fonov et al. 2011).
All coordinates are millimetres of MNI space. A voxel of a scan is followed back to the template,
scan → head (position in the scanner, head size) → template (deformation, atrophy), and takes the
tissue of that place, so that nothing is interpolated twice.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation
from scipy.special import expit
from torch.nn.functional import grid_sample

Floats = NDArray[np.float32]

# The field of view, low to high: head-sized, its floor in the medulla as in many real scans.
FIELD_MM: Final = np.array([[-90.0, 90.0], [-126.0, 92.0], [-62.0, 100.0]])
CENTRE_MM: Final = np.array([0.0, -17.0, 10.0])  # sizes and rotations are about this point
FINE_MM: Final = 2.0  # grid of the folding pattern
COARSE_MM: Final = 4.0  # grid of the deformation
REACH_MM: Final = 16.0  # no deformation brings the brain farther than this
PUSH_MM: Final = 30.0  # what is farther from the ventricles is not moved by their wall
VENTRICLES_MM: Final = np.array([[-38, 38], [-55, 33], [-5, 30]])  # a box that holds both
HIPPOCAMPI_MM: Final = np.array([[-26.0, -20.0, -16.0], [26.0, -20.0, -16.0]])
HIPPOCAMPUS_RADII_MM: Final = np.array([7.0, 14.0, 8.0])
PIAL_SLOPE: Final = 1.2  # median gain of the log-odds of CSF per mm across the pial surface


@dataclass(frozen=True)
class Field:
    """Quantities over MNI space: values (C, I, J, K), place of the first voxel, spacing."""

    voxels: Floats
    origin: NDArray[np.float64]
    spacing_mm: float

    def at(self, points: Floats, mode: Literal["nearest", "bilinear"] = "bilinear") -> Floats:
        """Return the values (C, N) at points (3, N): of the nearest voxel, or linear.

        All quantities at once, by PyTorch, which finds a point's eight neighbours once for all.
        """
        # grid_sample wants z, y, x, and -1 and 1 for the first and the last voxel
        last = np.array(self.voxels.shape[:0:-1]) - 1
        scale = (2 / (self.spacing_mm * last)).astype(np.float32)
        places = np.empty((points.shape[1], 3), dtype=np.float32)
        for axis, along in enumerate(points[::-1]):
            places[:, axis] = (along - np.float32(self.origin[2 - axis])) * scale[axis] - 1
        values = grid_sample(
            torch.from_numpy(self.voxels)[None],
            torch.from_numpy(places)[None, None, None],
            mode=mode,
            padding_mode="border",
            align_corners=True,
        )  # (1, C, 1, 1, N)
        return values[0, :, 0, 0].numpy()


@dataclass(frozen=True)
class Template:
    """What a simulated head needs of the template."""

    near: Field  # 1 wherever a deformation may bring the brain; coarse
    inside: Field  # 1 in the brain, 0 outside
    tissue: Field  # log-odds of CSF against tissue, of grey against white; detail: the T1 template
    # less what three flat tissues explain
    wall: Field  # signed distance to the wall of the lateral ventricles in mm, negative within, and
    # x, y, z of the direction away from that wall, fading with distance


@dataclass(frozen=True)
class Head:
    """What distinguishes one head from others; nothing in it depends on the class."""

    scale: NDArray[np.float64]  # (3,) size relative to the template
    displacement: Field  # head → template, x, y, z in mm
    folding: Field  # log-odds that shift the pial and the white surface
    texture: Field  # regional differences of the T1 signal, a share of it
    csf_to_white: float  # intensity of CSF; white matter is 1
    grey_to_white: float
    ventricle_mm: float  # inborn size of the ventricles: shift of their wall
    sulcus_mm: float  # inborn width of the sulci: shift of the pial surface


@dataclass(frozen=True)
class Atrophy:
    """What is lost: wall of the ventricles and pial surface moved by so many mm, and a share."""

    ventricle_mm: float
    thinning_mm: float
    medial_temporal_loss: float


@dataclass(frozen=True)
class Visit:
    """What distinguishes one scan of a head: position in the scanner, coil and noise."""

    rotation: NDArray[np.float64]  # (3, 3)
    shift_mm: NDArray[np.float64]  # (3,)
    waves: NDArray[np.float64]  # (W, 4) of the bias field: radians per mm along x, y, z; phase
    bias: float  # standard deviation of the bias field's logarithm
    noise_sd: float  # white matter is 1
    gain: float  # stored value of white matter


@dataclass(frozen=True)
class Tissues:
    """The tissue at each of N points."""

    csf: Floats  # share of CSF
    grey: Floats  # share of grey matter in what is no CSF
    ventricle: Floats  # share of lateral ventricle
    detail: Floats  # what the T1 template adds


def load_template() -> Template:
    """Read nilearn's packaged MNI152 template at 1 mm and derive what a head needs of it."""
    from nilearn import datasets  # slow to import, and worker processes never need it

    t1, origin = _read(datasets.load_mni152_template)
    grey, _ = _read(datasets.load_mni152_gm_template)
    white, _ = _read(datasets.load_mni152_wm_template)
    inside = t1 > 0
    csf = np.clip(1 - grey - white, 0, 1)
    flat = 0.27 * csf + 0.655 * grey + 0.87 * white  # medians of T1 where one tissue is alone
    detail = np.where(inside, t1 - flat, 0).astype(np.float32)
    distance, corner = _ventricle_distance(np.where(inside, csf, 0), origin)
    # Nearly rigid at the wall, gone at PUSH_MM; within, the opposite wall must not be overshot.
    fade = np.exp(-np.square(distance / np.where(distance > 0, 14.0, 3.0))) * (distance < PUSH_MM)
    outward = [slope * fade for slope in np.gradient(distance, 2.0)]
    tissue = [_log_odds(csf, 1 - csf), _log_odds(grey, white), detail]
    return Template(
        near=_near(inside, origin),
        inside=Field(inside.astype(np.float32)[None], origin, 1.0),
        tissue=Field(np.stack(tissue), origin, 1.0),
        wall=Field(np.stack([distance, *outward]).astype(np.float32), corner, 2.0),
    )


def draw_head(rng: np.random.Generator, individuality: float) -> Head:
    """Draw a head; `individuality` scales all that sets it apart from the template."""
    amount = individuality
    size = rng.normal(0, 0.035) + rng.normal(0, 0.025, 3)
    bends = [_smooth_noise(rng, COARSE_MM, ((18.0, 3.4), (8.0, 1.2))) for _ in range(3)]
    bends = [bend - bend.mean() for bend in bends]  # a visit draws the position
    folds = [_smooth_noise(rng, FINE_MM, ((3.0, 1.0),)) for _ in range(2)]
    texture = _smooth_noise(rng, COARSE_MM, ((7.0, 0.05),))
    corner = FIELD_MM[:, 0]
    return Head(
        scale=np.exp(amount * size),
        displacement=Field(amount * np.stack(bends), corner, COARSE_MM),
        folding=Field(amount * np.stack(folds), corner, FINE_MM),
        texture=Field(amount * texture[None], corner, COARSE_MM),
        csf_to_white=0.3 + float(np.clip(amount * rng.normal(0, 0.05), -0.15, 0.15)),
        grey_to_white=0.74 + float(np.clip(amount * rng.normal(0, 0.035), -0.12, 0.12)),
        ventricle_mm=amount * float(rng.normal(0, 0.5)),
        sulcus_mm=amount * float(rng.normal(0, 0.15)),
    )


def draw_visit(rng: np.random.Generator, individuality: float, noise: float) -> Visit:
    """Draw what is new at each scan: a few degrees and millimetres, coil, noise and gain."""
    degrees = individuality * rng.normal(0, 2.0, 3)
    waves = np.column_stack([rng.normal(0, 1 / 60, (6, 3)), rng.uniform(0, 2 * math.pi, 6)])
    return Visit(
        rotation=Rotation.from_euler("xyz", degrees, degrees=True).as_matrix(),
        shift_mm=individuality * rng.normal(0, 1.5, 3),
        waves=waves,
        bias=0.1 * individuality,
        noise_sd=noise * math.exp(rng.normal(0, 0.2)),
        gain=rng.uniform(500, 1500),
    )


def scan_head(
    template: Template,
    head: Head,
    atrophy: Atrophy,
    visit: Visit,
    rng: np.random.Generator,
    spacing_mm: float,
) -> tuple[NDArray[np.int16], dict[str, float]]:
    """Return a scan in RAS order, int16 (I, J, K), and its volumes in ml.

    The volumes are sums over the voxels of the scan: of the share of a voxel within the moved wall
    of the lateral ventricles, of CSF, and of grey and white matter.
    """
    shape, grid = _grid(spacing_mm)
    points = _to_head(grid, head, visit)
    near = np.flatnonzero(template.near.at(points, "nearest"))
    points = points[:, near]  # (3, N)
    bent = points + head.displacement.at(points)
    brain = template.inside.at(bent, "nearest")[0] > 0
    near, points, bent = near[brain], points[:, brain], bent[:, brain]

    tissues = _tissues(template, head, atrophy, points, bent)
    signal = _signal(tissues, head) * (1 + head.texture.at(points)[0]) * _bias(visit, grid[:, near])
    noise = np.float32(visit.noise_sd) * rng.standard_normal((2, near.size), dtype=np.float32)
    magnitude = np.hypot(signal + noise[0], noise[1])  # of a complex signal: Rician
    volume = np.zeros(math.prod(shape), dtype=np.int16)
    volume[near] = np.clip(np.rint(visit.gain * magnitude), 1, 32767)
    shares = {"ventricle": tissues.ventricle, "csf": tissues.csf, "brain": 1 - tissues.csf}
    millilitre = spacing_mm**3 / 1000
    volumes = {
        f"{name}_ml": float(share.sum(dtype=np.float64)) * millilitre
        for name, share in shares.items()
    }
    return volume.reshape(shape), volumes  # (I, J, K)


def _grid(spacing_mm: float) -> tuple[tuple[int, ...], Floats]:
    """Return the shape of a scan and the places of its voxels in the scanner, (3, I*J*K) in mm."""
    axes = [np.arange(low, high + 1e-6, spacing_mm, dtype=np.float32) for low, high in FIELD_MM]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)  # (3, I*J*K)
    return tuple(len(axis) for axis in axes), grid


def _to_head(grid: Floats, head: Head, visit: Visit) -> Floats:
    """Undo the position in the scanner and the head's size; (3, N) both ways.

    Written out, since a BLAS product may round differently with another number of threads.
    """
    x, y, z = grid - _column(CENTRE_MM + visit.shift_mm)
    undo = (visit.rotation / head.scale).T.astype(np.float32)  # (3, 3)
    return np.stack([a * x + b * y + c * z for a, b, c in undo]) + _column(CENTRE_MM)


def _tissues(
    template: Template, head: Head, atrophy: Atrophy, points: Floats, bent: Floats
) -> Tissues:
    """Return the tissue at N places, given in the head (`points`) and in the template (`bent`)."""
    # 1. The wall of the ventricles moves out and takes its surroundings along.
    distance, *outward = template.wall.at(bent)
    wall = np.float32(atrophy.ventricle_mm + head.ventricle_mm)
    ventricle = expit((wall - distance) / np.float32(0.5))
    source = bent - wall * np.stack(outward)
    # 2. The medial temporal lobe shrinks and CSF takes the room.
    source, vacated = _shrink_hippocampi(source, np.float32(atrophy.medial_temporal_loss))
    # 3. The pial surface recedes into the cortex, so that the sulci widen.
    cortical = 1 - np.exp(-np.square(np.maximum(distance, 0) / 8))
    pial = np.float32(PIAL_SLOPE * (atrophy.thinning_mm + head.sulcus_mm))
    (csf, grey, detail), folding = template.tissue.at(source), head.folding.at(points)
    csf += vacated + cortical * (folding[0] + pial)
    grey += np.float32(0.7) * cortical * folding[1]
    return Tissues(
        # Factors above 1 turn the shares of many subjects into the sharper borders of one.
        csf=np.maximum(expit(np.float32(1.6) * csf), ventricle),
        grey=expit(np.float32(1.4) * grey),
        ventricle=ventricle,
        detail=detail,
    )


def _shrink_hippocampi(source: Floats, loss: np.float32) -> tuple[Floats, Floats]:
    """Draw the template's hippocampi together; return where to look and log-odds of CSF around."""
    vacated = np.zeros_like(source[0])
    magnify = (1 - loss) ** np.float32(-1 / 3) - 1
    for centre in HIPPOCAMPI_MM:
        away = source - _column(centre)  # (3, N)
        depth = np.square(away / _column(HIPPOCAMPUS_RADII_MM)).sum(axis=0) / 2
        bell = np.exp(-depth)
        source = source + away * bell * magnify
        vacated += 5 * loss * np.float32(math.e) * depth * bell  # crest: one and a half radii away
    return source, vacated


def _signal(tissues: Tissues, head: Head) -> Floats:
    """Return the T1 signal of N points without bias and noise; white matter is 1."""
    matter = 1 - tissues.grey * np.float32(1 - head.grey_to_white)
    csf = np.float32(head.csf_to_white)
    return tissues.csf * csf + (1 - tissues.csf) * matter + tissues.detail * (1 - csf)


def _bias(visit: Visit, grid: Floats) -> Floats:
    """Return a coil's smooth gain at N places in the scanner: a sum of slow waves."""
    log_gain = np.zeros_like(grid[0])
    for a, b, c, phase in visit.waves.astype(np.float32):
        log_gain += np.cos(a * grid[0] + b * grid[1] + c * grid[2] + phase)
    return np.exp(np.float32(visit.bias * math.sqrt(2 / len(visit.waves))) * log_gain)


def _smooth_noise(
    rng: np.random.Generator, grid_mm: float, parts: tuple[tuple[float, float], ...]
) -> Floats:
    """Return a Gaussian random field over the field of view: a sum of independent smooth fields.

    parts: the width of each one's Gaussian kernel in mm, and its standard deviation.
    """
    share = _spectrum(grid_mm, parts)
    shape = (*share.shape[:2], 2 * (share.shape[2] - 1))
    white = rng.standard_normal(shape, dtype=np.float32)
    return fft.irfftn(fft.rfftn(white) * share, shape)


@cache
def _spectrum(grid_mm: float, parts: tuple[tuple[float, float], ...]) -> Floats:
    """Return by what each wave of white noise is multiplied; the field wraps round its edges."""
    fewest = np.ceil((FIELD_MM[:, 1] - FIELD_MM[:, 0]) / grid_mm).astype(int) + 1
    i, j, k = (2 * fft.next_fast_len(-(-int(length) // 2)) for length in fewest)
    axes = np.ix_(fft.fftfreq(i), fft.fftfreq(j), fft.rfftfreq(k))
    squared = sum(np.square(axis) for axis in axes)  # (I, J, K/2 + 1), of cycles per voxel
    power = np.zeros_like(squared)
    for width_mm, deviation in parts:
        width = width_mm / grid_mm
        # averaging takes from the variance of white noise: 2 sqrt(pi) widths an axis
        scale = deviation**2 * (2 * math.sqrt(math.pi) * width) ** 3
        power += scale * np.exp(-np.square(2 * math.pi * width) * squared)
    return np.sqrt(power).astype(np.float32)


def _read(load: Callable[..., Any]) -> tuple[Floats, NDArray[np.float64]]:
    """Return a template within FIELD_MM and a margin, and the place of its first voxel."""
    image = load(resolution=1)
    first = image.affine[:3, 3]
    low = np.maximum(FIELD_MM[:, 0] - 10 - first, 0).astype(int)
    box = tuple(map(slice, low, (FIELD_MM[:, 1] - first).astype(int)))
    return np.asarray(image.dataobj, dtype=np.float32)[box].copy(), first + low


def _log_odds(share: Floats, rest: Floats) -> Floats:
    return np.log((share + 0.02) / (rest + 0.02)).astype(np.float32)


def _near(inside: NDArray[np.bool_], origin: NDArray[np.float64]) -> Field:
    coarse = np.pad(inside[::4, ::4, ::4], 5)
    distance = ndimage.distance_transform_edt(~coarse, sampling=4.0)
    return Field((distance < REACH_MM).astype(np.float32)[None], origin - 5 * 4.0, 4.0)


def _ventricle_distance(
    csf: Floats, origin: NDArray[np.float64]
) -> tuple[Floats, NDArray[np.float64]]:
    """Return the distance to the lateral ventricles, the largest pocket of CSF deep inside.

    It is on a grid of 2 mm; the place of its first voxel is returned too.
    """
    low, high = (VENTRICLES_MM - origin[:, None]).astype(int).T
    deep = tuple(map(slice, low, high))
    margin = int(PUSH_MM)
    around = tuple(map(slice, np.maximum(low - margin, 0), high + margin))
    pockets = np.zeros(csf.shape, dtype=bool)
    pockets[deep] = csf[deep] > 0.5
    numbers, _ = ndimage.label(pockets[around])
    ventricle = numbers == np.bincount(numbers.ravel())[1:].argmax() + 1
    outside, within = (ndimage.distance_transform_edt(part) for part in (~ventricle, ventricle))
    distance = ndimage.gaussian_filter((outside - within).astype(np.float32), 1.0)
    return distance[::2, ::2, ::2], origin + [axis.start for axis in around]


def _column(vector: NDArray[np.float64]) -> Floats:
    return vector.astype(np.float32)[:, None]  # (3, 1)

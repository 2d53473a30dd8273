"""Random changes of slices, on the device, as they enter a training step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from headscope.training.recipe import Recipe


@dataclass(frozen=True)
class Augmentation:
    """Flips, small rotations and intensity jitter, drawn again for every slice of every step.

    flip: mirrored left to right with probability 1/2. rotate_deg: turned about the middle by an
    angle drawn uniformly between plus and minus that; corners that open are black. jitter:
    intensities times a factor drawn uniformly from 1 − jitter to 1 + jitter, at most 255.
    """

    flip: bool = False
    rotate_deg: float = 0.0
    jitter: float = 0.0

    def __call__(self, grey: Tensor) -> Tensor:
        """Return slices (B, 1, H, W) in 0 to 255, changed by torch's default random numbers.

        The numbers are drawn on the CPU, so that every device sees the same slices.
        """
        side, turn, gain = torch.rand(3, len(grey)).to(grey.device, non_blocking=True)  # (B,) each
        if self.flip:
            grey = torch.where(side.view(-1, 1, 1, 1) < 0.5, grey.flip(-1), grey)
        if self.rotate_deg:
            grey = rotate(grey, (2 * turn - 1) * math.radians(self.rotate_deg))
        if self.jitter:
            factor = 1 + (2 * gain - 1) * self.jitter
            grey = (grey * factor.view(-1, 1, 1, 1)).clamp(max=255)
        return grey


def augmentation_of(recipe: Recipe) -> Augmentation | None:
    """Return the augmentation of a recipe; None where it has none."""
    changes = Augmentation(recipe.augment_flip, recipe.augment_rotate_deg, recipe.augment_jitter)
    return None if changes == Augmentation() else changes


def rotate(grey: Tensor, angle: Tensor) -> Tensor:
    """Turn slices (B, 1, H, W) counter-clockwise by angles (B,) in radians, bilinearly."""
    height, width = grey.shape[-2:]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # grid_sample's axes run from −1 to 1 whatever the sides are
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)  # (B, 2, 3)
    grid = affine_grid(theta, list(grey.shape), align_corners=False)  # (B, H, W, 2)
    return grid_sample(grey, grid, align_corners=False)

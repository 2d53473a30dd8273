"""Slices and features as network input: bytes on the device, made into floats batch by batch."""

import copy
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headscope.training.augmentation import Augmentation

RESIDENT_BYTES = 2 * 2**30


class Inputs(Protocol):
    """The input of a network: rows in, a batch on the device out."""

    def __len__(self) -> int:
        """Return how many rows there are."""
        ...

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the batch of those rows."""
        ...


class SliceInputs:
    """Grey slices (N, H, W) uint8 as normalised colour input (B, 3, H, W) float32.

    The whole set is on the device while it is below 2 GiB, or a quarter of a GPU's free memory;
    beyond that, batches are read from the memory map. Channels are last, which is faster for
    convolutions.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
    ) -> None:
        """Take the slices, and the mean and standard deviation of pixels in 0 to 1."""
        self.pixels = pixels
        self.device = device
        self.augmentation: Augmentation | None = None
        resident = pixels.nbytes <= _room(device)
        self.resident = torch.from_numpy(np.array(pixels)).to(device) if resident else None
        spread = torch.tensor(std, device=device)
        self.scale = 1 / (255 * spread)  # (3,)
        self.shift = -torch.tensor(mean, device=device) / spread  # (3,)

    def __len__(self) -> int:
        """Return N."""
        return len(self.pixels)

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Return slices `rows` as a batch."""
        grey = self._grey(rows).unsqueeze(1).to(torch.float32)  # (B, 1, H, W)
        if self.augmentation is not None:
            grey = self.augmentation(grey)
        colour = torch.addcmul(self.shift, grey.squeeze(1).unsqueeze(-1), self.scale)
        return colour.permute(0, 3, 1, 2)  # (B, H, W, 3) → (B, 3, H, W), channels last

    def augmented(self, augmentation: Augmentation | None) -> "SliceInputs":
        """Return the same slices, changed at random in every batch."""
        changed = copy.copy(self)
        changed.augmentation = augmentation
        return changed

    def _grey(self, rows: NDArray[np.int64]) -> Tensor:
        """Return slices (B, H, W) uint8 on the device."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(rows).to(self.device, non_blocking=True)]
        read = torch.from_numpy(self.pixels[rows])
        if self.device.type == "cuda":
            read = read.pin_memory()  # so that the copy overlaps with the previous step
        return read.to(self.device, non_blocking=True)


class FeatureInputs:
    """Stored features (N, D) as the input of a classifier that trains alone."""

    def __init__(self, features: NDArray[np.float32], device: torch.device) -> None:
        """Put all features on the device."""
        self.features = torch.from_numpy(features).to(device)

    def __len__(self) -> int:
        """Return N."""
        return len(self.features)

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the features (B, D) of `rows`."""
        return self.features[torch.from_numpy(rows).to(self.features.device, non_blocking=True)]


def batches(rows: NDArray[Any], batch_size: int) -> list[NDArray[Any]]:
    """Cut `rows` into batches of at most `batch_size` whose sizes differ by one at most.

    With batches of three and more no epoch ends on a single slice, of which BatchNorm could take
    no variance.
    """
    return np.array_split(rows, max(1, -(-len(rows) // batch_size)))


def step_seeds(steps: int, seed: int, epoch: int) -> list[int]:
    """Return the seed of each step of an epoch: a function of (seed, epoch, step) alone."""
    return np.random.SeedSequence((seed, epoch)).generate_state(steps).tolist()


def _room(device: torch.device) -> int:
    """Return how many bytes of slices may be on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return RESIDENT_BYTES

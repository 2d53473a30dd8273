import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as oracle

from headscope.training.augmentation import Augmentation, augmentation_of, rotate
from headscope.training.device import seed_step
from headscope.training.loader import step_seeds
from headscope.training.recipe import Recipe
from tests.support.training import CPU, inputs_of, network, small_cohort


@pytest.fixture
def slices():
    return torch.from_numpy(small_cohort()[0])[:, None].float()  # (N, 1, H, W)


@pytest.mark.parametrize("degrees", [-90.0, -7.5, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("shape", [(32, 32), (32, 24)])
def test_slices_are_turned_as_torchvision_turns_them(slices, degrees, shape):
    grey = slices[:3, :, : shape[0], : shape[1]]
    turned = rotate(grey, torch.full((3,), np.deg2rad(degrees), dtype=torch.float32))
    expected = oracle.rotate(grey, degrees, interpolation=InterpolationMode.BILINEAR)
    # where a sampled point falls on the border of the picture, rounding decides
    close = torch.isclose(turned, expected, atol=0.05)
    assert close.float().mean() > 0.98


def test_half_of_the_slices_are_mirrored(slices):
    many = slices.repeat(25, 1, 1, 1)
    seed_step(0, CPU)
    changed = Augmentation(flip=True)(many)
    same = (changed == many).flatten(1).all(dim=1)
    mirrored = (changed == many.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55


def test_jitter_scales_intensities_and_keeps_black_black(slices):
    grey = slices.clone()
    grey[:, :, 0] = 0
    seed_step(0, CPU)
    changed = Augmentation(jitter=0.3)(grey)
    assert (changed[:, :, 0] == 0).all() and changed.max() <= 255
    below = (changed < 255) & (grey > 0)
    factors = torch.where(below, changed / grey, torch.nan).flatten(1)
    each = factors.nanmean(dim=1, keepdim=True)
    assert torch.allclose(factors[below.flatten(1)], each.expand_as(factors)[below.flatten(1)])
    assert each.min() >= 0.7 and each.max() <= 1.3 and each.std() > 0.1


def test_random_numbers_depend_on_seed_epoch_and_step_alone(slices):
    everything = Augmentation(flip=True, rotate_deg=10.0, jitter=0.2)

    def at(seed, epoch, step):
        seed_step(step_seeds(4, seed, epoch)[step], CPU)
        return everything(slices)

    first = at(1, 2, 3)
    torch.rand(7)
    assert torch.equal(first, at(1, 2, 3))
    for other in ((0, 2, 3), (1, 1, 3), (1, 2, 2)):
        assert not torch.equal(first, at(*other))
    assert step_seeds(4, 1, 2) == step_seeds(9, 1, 2)[:4]


def test_only_what_trains_sees_augmented_slices():
    built, pixels = network(), small_cohort()[0]
    inputs, rows = inputs_of(built, pixels), np.arange(8)
    plain = inputs(rows)
    changed = inputs.augmented(Augmentation(flip=True))
    assert torch.equal(inputs(rows), plain) and not torch.equal(changed(rows), plain)
    assert changed.resident is inputs.resident
    assert plain.is_contiguous(memory_format=torch.channels_last)


def test_a_recipe_without_augmentation_has_none():
    assert augmentation_of(Recipe(1, 0.1)) is None
    asked = Recipe(1, 0.1, augment_flip=True, augment_rotate_deg=5.0, augment_jitter=0.1)
    assert augmentation_of(asked) == Augmentation(True, 5.0, 0.1)
    assert augmentation_of(asked.for_head()) is None

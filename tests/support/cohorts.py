"""Eight small cohorts of pictures of which the right verdict is known."""

from collections import Counter

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 96


def draw_head(rng):
    """A bright ellipse common to all, with folds that are this head's alone: (H, W) uint8."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    folds = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.6)
    grey = 150 + 26 * folds / folds.std() + 60 * np.exp(-4 * (x**2 + y**2))
    return np.clip(((x / 0.72) ** 2 + (y / 0.88) ** 2 < 1) * grey, 0, 255).astype(np.uint8)


def vary(rng, head):
    """The same head in another slice: a little noise."""
    return np.clip(head + rng.normal(0, 6, head.shape) * (head > 0), 0, 255).astype(np.uint8)


def save(folder, label, subject, number, pixels):
    place = folder / label / f"sub-{subject:03d}_ses-{number}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place)


def write(folder, labels, slices=4, *, head_of=None, mark=None, seed=0):
    """Write pictures: labels of subjects, `slices` each; head_of tells whose head each bears."""
    rng = np.random.default_rng(seed)
    heads = [draw_head(rng) for _ in labels]
    for n, label in enumerate(labels):
        source = n if head_of is None else head_of[n]
        for number in range(slices):
            own = np.random.default_rng([seed, source, number])
            pixels = vary(own, heads[source])
            save(folder, label, n, number, pixels if mark is None else mark(pixels, label))
    return folder


def random_labels(folder):
    rng = np.random.default_rng(5)
    return write(folder, [("AD", "NC")[k] for k in rng.permutation(np.arange(40) % 2)])


def constant_pictures(folder):
    labels = [("AD", "NC")[n % 5 > 1] for n in range(30)]
    same = draw_head(np.random.default_rng(1))
    return write(folder, labels, mark=lambda pixels, label: same)


def one_tested_subject_per_class(folder):
    return write(folder, [("AD", "NC")[n % 2] for n in range(6)], slices=8)


def one_to_twenty(folder):
    return write(folder, ["AD"] * 3 + ["NC"] * 60, slices=2)


def duplicated_subjects(folder):
    labels = [("AD", "NC")[n % 2] for n in range(40)]
    return write(folder, labels, head_of=[n % 20 for n in range(40)])


def border_tells(folder):
    def mark(pixels, label):
        pixels = pixels.copy()
        if label == "AD":
            pixels[:, :3] = 160
        return pixels

    return write(folder, [("AD", "NC")[n % 2] for n in range(40)], mark=mark)


def five_classes(folder):
    def mark(pixels, label):
        return np.where(pixels > 0, np.clip(pixels * (0.4 + 0.15 * int(label)), 1, 255), 0).astype(
            np.uint8
        )

    return write(folder, [str(n % 5) for n in range(60)], mark=mark)


def changing_labels(folder):
    """50 subjects of four visits; ten of them convert after two."""
    rng = np.random.default_rng(0)
    for n in range(50):
        head, label = draw_head(rng), ("NC", "AD")[n % 2]
        for number in range(4):
            converted = n < 20 and n % 2 == 0 and number > 1
            save(folder, "AD" if converted else label, n, number, vary(rng, head))
    return folder


def subjects_of(table):
    """Count the subjects of each label in a part of `predictions.tsv`."""
    return Counter(table.drop_duplicates(["subject_id", "label"])["label"])

"""Ready pictures as slices: every kind of file, ids in names or none, bombs and broken ones."""

import json
import re
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headscope.analysis import (
    NAMELESS,
    markdown_table,
    results_table,
    setting_results,
    settings_table,
)
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.experiment.run import run
from headscope.metrics import run_scores
from headscope.record import read_experiment
from headscope.reporting import write_report
from headscope.scans.discovery import find_scans
from headscope.scans.volume import ScanError
from headscope.slicing.picture import take_picture
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices
from tests.support.experiments import settings

pytestmark = pytest.mark.usefixtures("few_trees")

SIZE = 48


def grey(shape=(SIZE, SIZE), seed=0):
    """A picture without symmetry, with a pixel of pure black and of pure white."""
    picture = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    picture[0, 0], picture[-1, -1] = 0, 255
    return picture


def saved(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def palette(picture):
    image = Image.fromarray(picture[..., None].repeat(3, axis=2))
    return image.quantize(256)


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_values_of_8_bits_are_kept(tmp_path, suffix, mode):
    picture = grey() // 4 * 4  # 64 greys, all of which a palette holds
    image = palette(picture) if mode == "P" else Image.fromarray(picture).convert(mode)
    path = saved(tmp_path / f"a.{suffix}", image)
    np.testing.assert_array_equal(take_picture(path, SIZE)[0], picture)


def test_jpeg_is_kept_as_well_as_jpeg_can(tmp_path):
    smooth = np.add.outer(np.arange(200), np.arange(200) // 2).clip(0, 255).astype(np.uint8)
    for mode in ("L", "RGB"):
        path = saved(tmp_path / "a.jpg", Image.fromarray(smooth).convert(mode), quality=95)
        assert np.abs(take_picture(path, 200)[0].astype(int) - smooth).max() <= 4
    small = Image.fromarray(smooth).resize((25, 25), Image.Resampling.BILINEAR)
    assert np.abs(take_picture(path, 25)[0].astype(int) - np.asarray(small)).mean() < 2


def test_transparency_is_black_and_colour_luminance(tmp_path):
    rgba = np.dstack([grey(seed=1), grey(seed=2), grey(seed=3), np.full((SIZE, SIZE), 255)])
    rgba[:, :10, 3] = 0
    path = saved(tmp_path / "a.png", rgba.astype(np.uint8))
    taken = take_picture(path, SIZE)[0].astype(float)
    assert (taken[:, :10] == 0).all()
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    np.testing.assert_allclose(taken[:, 10:], rgba[:, 10:, :3] @ weights, atol=1)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deeper_pictures_are_windowed_by_percentiles(tmp_path, dtype, suffix):
    if suffix == "png" and dtype != np.uint16:
        pytest.skip("PNG holds whole numbers of 8 or 16 bits")
    rows, columns = np.indices((SIZE, SIZE))
    picture = np.where(rows > 8, 500 + 30 * columns, 0)
    taken = take_picture(saved(tmp_path / f"a.{suffix}", picture.astype(dtype)), SIZE)[0]
    low, high = np.percentile(picture[picture > 0], [1, 98])
    expected = ((picture - low) / (high - low)).clip(0, 1) * 255
    np.testing.assert_allclose(taken, expected, atol=6)


@pytest.mark.parametrize("mark", range(1, 9))
def test_a_turned_picture_is_turned_back(tmp_path, mark):
    upright = np.zeros((40, 40), np.uint8)
    upright[2:10, 4:30] = 200
    upright[20:36, 2:8] = 90
    stored_as = {  # EXIF 2.3, table 6: where the first row and column of the file belong
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = mark
    stored = np.ascontiguousarray(stored_as[mark](upright))
    path = saved(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(take_picture(path, 40)[0], upright)


def test_proportions_are_kept_and_padded_black(tmp_path):
    path = saved(tmp_path / "a.png", 100 + grey((30, 60)) // 2)
    taken = take_picture(path, 60)[0]
    assert (taken[:15] == 0).all() and (taken[45:] == 0).all() and (taken[15:45] >= 100).all()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG of a few bytes whose header claims a great many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def broken(tmp_path):
    pages = [Image.fromarray(grey(seed=n)) for n in range(3)]
    saved(tmp_path / "pages.tif", pages[0], save_all=True, append_images=pages[1:])
    saved(tmp_path / "constant.png", np.full((9, 9), 7, np.uint8))
    saved(tmp_path / "nan.tif", np.full((9, 9), np.nan, np.float32))
    whole = saved(tmp_path / "whole.jpg", grey()).read_bytes()
    contents = {
        "empty.png": b"",
        "words.jpg": b"no picture at all",
        "cut.jpg": whole[: len(whole) // 2],
        "bomb.png": bomb(60000, 60000),
        "smaller-bomb.png": bomb(9000, 9000),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)


BROKEN = {
    "pages.tif": "holds several pages",
    "constant.png": "shows nothing: every pixel is 7",
    "nan.tif": "infinite intensities, or none",
    "empty.png": "is empty",
    "words.jpg": "is no picture",
    "cut.jpg": "truncated",
    "bomb.png": "is too large for a slice",
    "smaller-bomb.png": "claims 9000×9000 pixels",
    "missing.png": "its .png does not exist",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_and_bombs_are_named(tmp_path, name):
    broken(tmp_path)
    with pytest.raises(ScanError, match=BROKEN[name]) as error:
        take_picture(tmp_path / name, SIZE)
    assert str(tmp_path) not in error.value.reason


def folders(tmp_path, name="{subject}_{number:02d}.png", subjects=6, each=4):
    data = tmp_path / "data"
    for k, label in enumerate(("AD", "NC")):
        for subject in range(subjects):
            for number in range(each):
                picture = grey(seed=100 * k + 10 * subject + number) // (k + 1)
                file = name.format(subject=f"p{k}{subject}", number=10 - number, label=label)
                saved(data / label / file, picture)
    return data


def test_ids_stand_where_the_pattern_says(tmp_path):
    data = folders(tmp_path)
    cohort = find_cohort(data, subject_pattern="^(p[0-9]+)_")
    assert sorted(set(cohort.scans["subject_id"])) == [f"p{k}{s}" for k in (0, 1) for s in range(6)]
    assert cohort.notes[0].text.startswith("class folders: 48 scans of 12 subjects")
    slices = write_slices(cohort, tmp_path / "out", SliceSpec(size=SIZE), workers=1)
    table = slices.table
    assert set(table.loc[table["subject_id"] == "p03", "slice_index"]) == {7, 8, 9, 10}
    assert set(table["session_id"]) == {"1"}
    for row in table.sample(5, random_state=0).itertuples():
        np.testing.assert_array_equal(
            slices.pixels[row.Index], np.asarray(Image.open(data / row.scan))
        )
    with pytest.raises(InputError, match=r"finds no id in 48 of 48 names, the first 'p00_07.png'"):
        find_cohort(data, subject_pattern="^(q[0-9]+)_")
    with pytest.raises(InputError, match="is no regular expression"):
        find_cohort(data, subject_pattern="(")


def test_known_forms_of_id_are_found(tmp_path):
    cohort = find_cohort(folders(tmp_path, "sub-{subject}_ses-2_{number}.png"))
    assert "sub-p00" in set(cohort.scans["subject_id"])
    assert set(cohort.scans["session_id"]) == {"ses-2"}
    assert "slice_index" in cohort.scans.columns


def test_a_table_of_pictures_is_read(tmp_path):
    data = folders(tmp_path)
    names = [path.relative_to(data).as_posix() for path in (file.path for file in find_scans(data))]
    table = pd.DataFrame({"path": names, "label": [name[:2] for name in names]})
    table.to_csv(data / "scans.tsv", sep="\t", index=False)
    assert set(find_cohort(data).scans["subject_id"]) == {"unknown"}
    named = find_cohort(data, subject_pattern="/(p[0-9]+)_").scans
    assert named["subject_id"].nunique() == 12


def test_without_ids_subjects_are_unknown_and_a_plane_is_needed(tmp_path):
    data = folders(tmp_path, "{subject}.{number}.png")
    cohort = find_cohort(data)
    assert set(cohort.scans["subject_id"]) == {"unknown"}
    assert cohort.scans["slice_index"].is_unique
    assert "48 pictures without subject ids" in cohort.notes[0].text
    assert any("--subject-pattern" in note.text for note in cohort.notes)
    with pytest.raises(InputError, match="ready pictures, whose plane is unknown"):
        find_cohort(data, plane="all")


def test_broken_pictures_are_listed_and_the_rest_goes_on(tmp_path):
    data = folders(tmp_path)
    (data / "AD" / "p00_07.png").write_bytes(bomb(60000, 60000))
    (data / "NC" / "p10_07.png").write_bytes(b"")
    slices = write_slices(find_cohort(data), tmp_path / "out", SliceSpec(size=SIZE), workers=1)
    assert len(slices.pixels) == 46
    problems = pd.read_csv(tmp_path / "out" / "problems.tsv", sep="\t")
    assert list(problems["path"]) == ["AD/p00_07.png", "NC/p10_07.png"]
    with pytest.raises(ScanError, match="p00_07"):
        write_slices(
            find_cohort(data), tmp_path / "strict", SliceSpec(size=SIZE), workers=1, strict=True
        )


def test_without_ids_only_a_split_by_slice_goes_on_and_is_marked(tmp_path, undrawn):
    data = folders(tmp_path)
    with pytest.raises(InputError, match=r"name no subjects.*--subject-pattern.*--splits slice"):
        run(settings(data, tmp_path / "refused", size=32))
    assert not (tmp_path / "refused" / "slices").exists()  # refused before any work
    known = {"size": 32, "splits": ["slice"], "regimes": ["frozen"], "epochs": 1}
    experiment = run(settings(data, tmp_path / "out", **known))
    (record,) = read_experiment(experiment)
    test = json.loads((record.path / "metrics.json").read_text())["test"]
    none = {"value": None, "low": None, "high": None}
    assert test["subjects"] == 0 and test["subject_accuracy"] == test["subject_auc"] == none
    right = record.predictions.query("subset == 'test'")
    expected = (right["label"] == right["predicted"]).mean()
    assert test["slice_accuracy"] == {"value": pytest.approx(expected), "low": None, "high": None}
    table = results_table([record])
    assert table["marker"].tolist() == [NAMELESS] and NAMELESS in markdown_table(
        settings_table(setting_results([record]))
    )
    page = write_report(experiment).read_text(encoding="utf-8")
    assert "The pictures name no subjects" in page and NAMELESS in page
    text = re.sub(r"<[^>]+>", "", page)
    assert "of 48 slices it is not known which show the same" in text


def test_figures_of_nameless_slices_are_those_of_slices(tmp_path):
    rng = np.random.default_rng(0)
    share = rng.random(40)
    table = pd.DataFrame(
        {
            "subset": "test",
            "subject_id": "unknown",
            "label": np.where(rng.random(40) < share, "b", "a"),
            "logit_a": np.log(1 - share),
            "logit_b": np.log(share),
        }
    )
    named = table.assign(subject_id=[f"s{n}" for n in range(40)])
    nameless = run_scores(table, ["a", "b"])["test"]
    for name in ("accuracy", "balanced_accuracy", "auc"):
        value = run_scores(named, ["a", "b"])["test"][f"slice_{name}"]["value"]
        assert nameless[f"slice_{name}"]["value"] == pytest.approx(value)

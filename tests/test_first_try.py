"""A first try on some subjects per class, with a recipe of its own: said wherever it is shown."""

import numpy as np
import pandas as pd
import pytest

from headscope.analysis.results.settings import setting_results, settings_table
from headscope.analysis.results.table import results_table
from headscope.cohort.selection import limit_subjects
from headscope.errors import InputError
from headscope.experiment.config import make_config
from headscope.experiment.run import run
from headscope.record import read_experiment
from headscope.reporting.explanations.provenance import provenance
from headscope.supplement.methods import methods
from headscope.supplement.prose import Facts
from headscope.supplement.study import read_study
from headscope.verification.verify import verify
from tests.support.experiments import settings, write_cohort

pytestmark = pytest.mark.usefixtures("few_trees")


def table(labels, ids, **columns):
    paths = [f"{k}.png" for k in range(len(labels))]
    return pd.DataFrame({"path": paths, "subject_id": ids, "label": labels, **columns})


def test_subjects_are_drawn_with_all_of_their_scans_and_always_the_same():
    ids = np.repeat([f"s{k}" for k in range(20)], 3)
    scans = table(np.where(np.arange(60) < 30, "AD", "NC"), ids)
    limited, note = limit_subjects(scans, 4)
    counts = limited.groupby("label")["subject_id"].agg(["nunique", "size"])
    assert counts.to_numpy().tolist() == [[4, 12], [4, 12]]
    assert limited.equals(limit_subjects(scans, 4)[0])
    assert "4 subjects per class were drawn" in note.text and "24 of 60 scans" in note.text
    assert limit_subjects(scans, 100)[0].equals(scans)


def test_a_subject_of_two_classes_counts_in_both():
    scans = table(["AD", "NC", "AD", "NC", "NC"], ["a", "a", "b", "c", "d"])
    for count in (1, 2):
        limited, _ = limit_subjects(scans, count)
        assert limited.groupby("label")["subject_id"].nunique().min() == count
        assert set(scans.loc[scans["subject_id"].isin(limited["subject_id"]), "path"]) == set(
            limited["path"]
        )


def test_pictures_without_ids_are_drawn_one_by_one_and_from_each_given_subset():
    labels = np.tile(["AD", "NC"], 20)
    pictures = table(labels, ["unknown"] * 40, given=np.repeat(["train", "test"], 20))
    limited, note = limit_subjects(pictures, 3)
    assert limited.groupby(["label", "given"]).size().tolist() == [3] * 4
    assert "3 pictures per class" in note.text


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ({"class_weights": "inverse"}, "'none' or 'balanced'"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"optimizer": "adam"}, "'sgd' or 'adamw'"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"sampling": "random"}, "'shuffle' or 'weighted'"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"keep_state": "some"}, "boolean"),
    ],
)
def test_a_value_that_does_not_exist_is_named(setting, part):
    with pytest.raises(InputError) as caught:
        make_config(data="scans", **setting)
    assert repr(next(iter(setting))) in str(caught.value) and part in str(caught.value)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("try")
    write_cohort(folder / "ADNI" / "scans", subjects=5)
    recipe = {"optimizer": "adamw", "class_weights": "balanced", "label_smoothing": 0.1}
    more = {"sampling": "weighted", "patience": 1, "limit": 4, "regimes": ["frozen"], "rivals": []}
    config = settings(
        folder / "ADNI" / "scans", folder / "out", splits=["subject"], **recipe, **more
    )
    return run(config)


def test_a_first_try_is_marked_in_record_table_and_verdict(experiment):
    runs = read_experiment(experiment)
    assert runs[0].settings["limit"] == 4
    assert runs[0].predictions["subject_id"].nunique() == 8
    expected = ["first try: 4 subjects per class"]
    assert list(results_table(runs)["marker"]) == expected
    assert list(settings_table(setting_results(runs))["marker"]) == expected
    assert "A first try:" in provenance(runs)[0]
    assert not verify(experiment).problems


def test_the_methods_name_how_a_run_trained(experiment):
    text = methods(read_study(experiment), Facts()).to_markdown()
    for part in (
        "trained by AdamW",
        "β₁ 0.9",
        "so that classes count alike",
        "smoothed by 0.1",
        "drawn with replacement",
        "Training ended early, after 1 epoch without",
    ):
        assert part in text, part


def test_an_encoder_that_saw_the_cohort_is_flagged():
    said = {"pretraining_overlap": ["it was pretrained on ADNI"]}

    class Stub:
        settings, named = said, True

    assert "may have seen these subjects:</b> it was pretrained on ADNI" in provenance([Stub()])[0]

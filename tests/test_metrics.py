import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from headscope.metrics import run_figures, softmax, subject_level, subset_figures, text


def cohort(seed: int, subjects: int, slices: int, classes: int, ties: bool):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(subjects), slices)
    labels = (np.arange(subjects) % classes)[owner]
    scores = rng.normal(size=(len(owner), classes)) + np.eye(classes)[labels]
    if ties:
        scores = np.round(scores)
    return labels, softmax(scores), np.char.add("sub-", owner.astype(str))


@given(st.integers(0, 2**32 - 1), st.integers(4, 12), st.integers(1, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_binary_figures_equal_scikit_learn(seed, subjects, slices, ties):
    labels, probabilities, subject_ids = cohort(seed, subjects, slices, 2, ties)
    figures = subset_figures(labels, probabilities, subject_ids, draws=20)
    predicted = probabilities.argmax(axis=1)
    assert figures["slice_accuracy"]["value"] == pytest.approx(
        accuracy_score(labels, predicted), abs=1e-12
    )
    assert figures["slice_balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(labels, predicted), abs=1e-12
    )
    assert figures["slice_auc"]["value"] == pytest.approx(
        roc_auc_score(labels, probabilities[:, 1]), abs=1e-12
    )


def test_multiclass_auc_is_the_mean_of_one_against_the_rest():
    labels, probabilities, subject_ids = cohort(0, 9, 4, 3, ties=False)
    figures = subset_figures(labels, probabilities, subject_ids, draws=20)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert figures["slice_auc"]["value"] == pytest.approx(expected, abs=1e-12)


def test_subject_probability_is_the_mean_over_its_slices():
    labels, probabilities, subject_ids = cohort(1, 6, 5, 2, ties=False)
    _, owner = np.unique(subject_ids, return_inverse=True)
    people = subject_level(labels, probabilities, owner)
    by_hand = np.stack([probabilities[owner == s].mean(axis=0) for s in range(6)])
    np.testing.assert_allclose(people.probabilities, by_hand, rtol=0, atol=1e-15)


def test_bootstrap_equals_scikit_learn_on_the_drawn_subjects():
    """The vectorised draw and a plain loop that repeats the drawn subjects' slices agree."""
    from headscope import metrics

    labels, probabilities, subject_ids = cohort(2, 8, 3, 2, ties=True)
    _, owner = np.unique(subject_ids, return_inverse=True)
    counts = metrics._draw_subjects(labels, owner, 8, 50, seed=3)
    assert (counts[:, 0::2].sum(axis=1) == 4).all() and (counts[:, 1::2].sum(axis=1) == 4).all()
    fast = metrics._auc(labels, probabilities, counts[:, owner])
    for draw in range(50):
        rows = np.repeat(np.arange(len(labels)), counts[draw, owner].astype(int))
        slow = roc_auc_score(labels[rows], probabilities[rows, 1])
        assert fast[draw] == pytest.approx(slow, abs=1e-12)


def test_interval_widens_with_subjects_drawn_whole():
    """Thirty copies of each subject's slice add slices, not information."""
    labels, probabilities, subject_ids = cohort(4, 20, 1, 2, ties=False)
    one = subset_figures(labels, probabilities, subject_ids)
    many = subset_figures(
        np.repeat(labels, 30), np.repeat(probabilities, 30, axis=0), np.repeat(subject_ids, 30)
    )
    assert many["slice_auc"] == pytest.approx(one["slice_auc"], abs=1e-12)


def test_one_class_only_leaves_the_auc_undefined():
    figures = subset_figures(np.zeros(4, int), np.full((4, 2), 0.5), np.array(list("aabb")))
    assert figures["slice_auc"] == {"value": None, "low": None, "high": None}
    assert figures["slice_accuracy"]["value"] == 1.0
    assert text(figures["slice_auc"]) == "undefined"


def test_a_subject_with_two_labels_counts_once_for_each():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    figures = subset_figures(labels, probabilities, np.array(["a", "a", "a", "b"]), draws=50)
    assert figures["subjects"] == 2
    assert figures["subject_accuracy"]["value"] == 1.0


@pytest.mark.parametrize("right", [True, False])
def test_draws_that_are_all_the_same_give_no_interval(right):
    """All right, or one class called for all: certainty that the bootstrap does not have."""
    labels = np.repeat([0, 1], 4)
    called = labels if right else np.zeros(8, int)
    figures = subset_figures(labels, np.eye(2)[called], np.arange(8).astype(str), draws=200)
    share = 1.0 if right else 0.5
    assert figures["subject_accuracy"] == {"value": share, "low": None, "high": None}
    assert figures["subject_auc"]["low"] is None


def test_text_shows_per_cent_and_interval():
    assert text({"value": 0.714, "low": 0.58, "high": 0.8312}) == "71.4 (95% 58.0 to 83.1)"
    assert text({"value": 0.5, "low": None, "high": None}) == "50.0"


def test_run_figures_reads_classes_by_name():
    import pandas as pd

    table = pd.DataFrame(
        {
            "subset": ["test"] * 4,
            "subject_id": list("abcd"),
            "label": ["NC", "AD", "NC", "AD"],
            "probability_AD": [0.1, 0.9, 0.6, 0.8],
            "probability_NC": [0.9, 0.1, 0.4, 0.2],
        }
    )
    assert run_figures(table, ["AD", "NC"])["test"]["slice_accuracy"]["value"] == 0.75

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.grouping import deal_folds
from headscope.splits.assign import SUBSETS, make_fold, make_split
from headscope.splits.balance import balance_of
from headscope.splits.files import LeakageError, check_ids, check_source, ensure_split


def cohort(sizes, sessions=1, slices=1):
    """A table of slices; class k has sizes[k] subjects of so many sessions (or 1 to 3 by turns)."""
    rows = [
        (f"s{k}-{subject}", f"MR{session}", f"class{k}", "axial", index)
        for k, size in enumerate(sizes)
        for subject in range(size)
        for session in range(sessions or 1 + subject % 3)
        for index in range(slices)
    ]
    columns = ["subject_id", "session_id", "label", "plane", "slice_index"]
    return pd.DataFrame(rows, columns=columns)


def subject_counts(table, subset):
    first = table.assign(subset=subset).drop_duplicates("subject_id")
    return pd.crosstab(first["label"], first["subset"]).reindex(columns=list(SUBSETS), fill_value=0)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(3, 40), min_size=2, max_size=5),
    sessions=st.integers(0, 3),
    slices=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_subject_splits_of_random_cohorts(sizes, sessions, slices, seed):
    table = cohort(sizes, sessions, slices)
    subset = make_split(table, kind="subject", seed=seed)
    assert table.assign(subset=subset).groupby("subject_id")["subset"].nunique().max() == 1
    counts = subject_counts(table, subset)
    assert counts.to_numpy().min() >= 1
    quota = np.outer(sizes, [0.5, 0.2, 0.3])
    assert np.abs(counts.to_numpy() - quota).max() < 1
    if min(sizes) >= 5:
        assert np.abs(counts.to_numpy().sum(axis=0) - quota.sum(axis=0)).max() <= 1
    shuffled = table.sample(frac=1, random_state=seed % 1000)
    again = make_split(shuffled, kind="subject", seed=seed)
    np.testing.assert_array_equal(subset[shuffled.index], again)


@settings(max_examples=50, deadline=None)
@given(
    ratio=st.tuples(*[st.integers(1, 9)] * 3),
    sizes=st.lists(st.integers(3, 12), min_size=1, max_size=4),
)
def test_totals_are_the_nearest_that_can_be_had(ratio, sizes):
    """Oracle: brute force over every table of floors and ceilings that leaves no cell empty."""
    shares = np.array(ratio) / sum(ratio)
    totals = {(0, 0, 0)}
    for size in sizes:
        ways = [
            (a, b, size - a - b)
            for a in range(1, size)
            for b in range(1, size - a)
            if np.abs(np.array([a, b, size - a - b]) - size * shares).max() < 1
        ]
        totals = {tuple(np.add(total, way)) for total in totals for way in ways}
    if not totals:  # a ratio so steep that one of each takes more than a unit from the largest
        return
    table = cohort(sizes)
    counts = subject_counts(table, make_split(table, kind="subject", ratio=ratio))
    found = np.linalg.norm(counts.to_numpy().sum(axis=0) - sum(sizes) * shares)
    best = min(np.linalg.norm(np.array(total) - sum(sizes) * shares) for total in totals)
    assert found == pytest.approx(best)


def test_a_steep_ratio_still_gives_every_subset_every_class():
    table = cohort([10, 3])
    counts = subject_counts(table, make_split(table, kind="subject", ratio=(98, 1, 1)))
    assert counts.to_numpy().tolist() == [[8, 1, 1], [1, 1, 1]]


def test_subjects_whose_label_changes_stay_together_and_are_spread():
    table = cohort([6, 6], sessions=2)
    changing = table["subject_id"].isin(["s0-0", "s0-1", "s0-2"]) & (table["session_id"] == "MR1")
    table.loc[changing, "label"] = "class1"
    subset = make_split(table, kind="subject", seed=3)
    by_subject = table.assign(subset=subset).groupby("subject_id")["subset"].agg(set)
    assert by_subject.map(len).max() == 1
    assert {next(iter(by_subject[f"s0-{n}"])) for n in range(3)} == set(SUBSETS)


def test_slice_splits_are_stratified_and_mix_subjects():
    table = cohort([4, 8], slices=25)
    subset = make_split(table, kind="slice", seed=1)
    for label, size in (("class0", 100), ("class1", 200)):
        counts = Counter(subset[table["label"] == label])
        assert [counts[name] for name in SUBSETS] == [
            size * 5 // 10,
            size * 2 // 10,
            size * 3 // 10,
        ]
    assert table.assign(subset=subset).groupby("subject_id")["subset"].nunique().min() > 1


def test_seeds_differ_and_repeat():
    table = cohort([20, 20])
    splits = [make_split(table, kind="subject", seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(splits[0], splits[1])
    assert (splits[0] != splits[2]).any()


@pytest.mark.parametrize(
    ("sizes", "options", "reason"),
    [
        ([5, 2], {}, r"at least 3 subjects of each class, and there are 5 of class0, 2 of class1"),
        ([5, 5], {"kind": "scan"}, "Unknown split 'scan': choose 'subject' or 'slice'"),
        ([5, 5], {"ratio": (5, 0, 5)}, "The ratio 5:0:5 must be three positive numbers"),
        ([5, 5], {"ratio": (7, 3)}, "The ratio 7:3 must be"),
    ],
)
def test_splits_that_cannot_be_are_refused(sizes, options, reason):
    with pytest.raises(InputError, match=reason):
        make_split(cohort(sizes), **({"kind": "subject"} | options))


def test_classes_that_share_too_few_subjects_are_refused():
    table = cohort([1, 9], sessions=2)
    table.loc[
        table["subject_id"].isin(["s1-0", "s1-1"]) & (table["session_id"] == "MR0"), "label"
    ] = "class0"
    try:
        subset = make_split(table, kind="subject")
    except InputError as error:
        assert "class0" in str(error)
    else:
        assert set(subset[table["label"] == "class0"]) == set(SUBSETS)


@pytest.mark.parametrize("kind", ["subject", "slice"])
def test_a_split_is_written_once(tmp_path, kind):
    table = cohort([5, 5], slices=4)
    path = tmp_path / "splits" / "s.tsv"
    first = ensure_split(path, table, kind=kind, seed=7)
    content = path.read_bytes()
    np.testing.assert_array_equal(first, make_split(table, kind=kind, seed=7))
    again = ensure_split(path, table, kind=kind, seed=8, ratio=(1, 1, 1))
    np.testing.assert_array_equal(first, again)
    assert path.read_bytes() == content
    path.unlink()
    ensure_split(path, table.sample(frac=1, random_state=0), kind=kind, seed=7)
    assert path.read_bytes() == content
    assert content.splitlines()[0].split(b"\t")[-1] == b"subset"


def test_ids_that_look_like_numbers_stay_text(tmp_path):
    table = cohort([5, 5])
    table["subject_id"] = [f"{number:03d}" for number in range(10)]
    subset = ensure_split(tmp_path / "s.tsv", table, kind="subject")
    np.testing.assert_array_equal(subset, ensure_split(tmp_path / "s.tsv", table, kind="subject"))


def test_a_leak_is_named(tmp_path):
    table = cohort([5, 5])
    path = tmp_path / "s.tsv"
    ensure_split(path, table, kind="subject")
    lines = path.read_text().splitlines()
    subset = lines[1].split("\t")[1]
    other = next(name for name in SUBSETS if name != subset)
    path.write_text("\n".join([*lines, f"s0-0\t{other}"]) + "\n")
    with pytest.raises(LeakageError, match=r"s\.tsv leaks: s0-0 is in two subsets"):
        ensure_split(path, table, kind="subject")


def test_a_split_by_slice_is_no_split_by_subject(tmp_path):
    table = cohort([5, 5], slices=10)
    ensure_split(tmp_path / "s.tsv", table, kind="slice")
    with pytest.raises(LeakageError, match="and 5 more are in two subsets"):
        ensure_split(tmp_path / "s.tsv", table, kind="subject")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("subject_id\tsubset\ns0-0\ttrain\n", "does not cover 9 of 10 slices"),
        ("subject\tsubset\ns0-0\ttrain\n", "lacks the column 'subject_id'"),
        ("subject_id\tsubset\ns0-0\tTRAIN\n", "names the subset 'TRAIN'; valid are train, val"),
        ("", "is no split"),
    ],
)
def test_foreign_split_files_are_checked(tmp_path, content, reason):
    (tmp_path / "s.tsv").write_text(content)
    with pytest.raises(InputError, match=reason):
        ensure_split(tmp_path / "s.tsv", cohort([5, 5]), kind="subject")


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
@pytest.mark.parametrize("value", ["", "2.5", "x", "inf", "99999999999"])
def test_a_number_of_a_slice_that_is_none_is_named(tmp_path, value, suffix):
    """It would be joined as a float, not be joined at all, or be cut to a whole number."""
    table, path = cohort([5, 5], slices=3), tmp_path / f"s{suffix}"
    ensure_split(tmp_path / "s.tsv", table, kind="slice")
    split = pd.read_csv(tmp_path / "s.tsv", sep="\t", dtype=str)
    split.loc[1, "slice_index"] = value
    split.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    with pytest.raises(InputError, match=rf"slice_index holds '{value}', which is no whole number"):
        ensure_split(tmp_path / "other.tsv", table, kind="slice", source=path)


def test_a_subset_without_a_class_is_refused(tmp_path):
    table = cohort([5, 5])
    ensure_split(tmp_path / "s.tsv", table, kind="subject")
    text = (tmp_path / "s.tsv").read_text().replace("\tval", "\ttrain")
    (tmp_path / "s.tsv").write_text(text)
    with pytest.raises(InputError, match="leaves the subset val without the class 'class0'"):
        ensure_split(tmp_path / "s.tsv", table, kind="subject")


@pytest.mark.real_data
def test_no_subject_of_oasis2_stands_in_two_subsets(real_data):
    scans = find_cohort(real_data / "oasis2").scans
    subset = make_split(scans, kind="subject", seed=0)
    assert scans.assign(subset=subset).groupby("subject_id")["subset"].nunique().max() == 1
    counts = subject_counts(scans, subset)
    quota = np.outer([64, 72], [0.5, 0.2, 0.3])
    assert np.abs(counts.to_numpy() - quota).max() < 1


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(5, 30), min_size=2, max_size=4),
    sessions=st.integers(0, 2),
    slices=st.integers(1, 3),
    folds=st.integers(2, 5),
    seed=st.integers(0, 2**32),
)
def test_folds_of_random_cohorts(sizes, sessions, slices, folds, seed):
    """Each subject is tested once; folds differ by one subject at most, in all and by class."""
    table = cohort(sizes, sessions, slices)
    tested = []
    for fold in range(folds):
        subset = make_fold(table, fold, folds, kind="subject", seed=seed)
        assert table.assign(subset=subset).groupby("subject_id")["subset"].nunique().max() == 1
        counts = subject_counts(table, subset)
        assert counts.to_numpy().min() >= 1
        quota = np.array(sizes) / folds
        assert np.abs(counts["test"] - quota).max() < 1
        assert abs(counts["test"].sum() - sum(sizes) / folds) < 1
        tested += sorted(set(table.loc[subset == "test", "subject_id"]))
        shuffled = table.sample(frac=1, random_state=seed % 1000)
        again = make_fold(shuffled, fold, folds, kind="subject", seed=seed)
        np.testing.assert_array_equal(subset[shuffled.index], again)
    assert sorted(tested) == sorted(set(table["subject_id"]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(2, 7), st.integers(0, 99))
def test_folds_are_dealt_evenly_in_all_and_within_strata(strata, folds, seed):
    strata = np.array(strata)
    order = np.random.default_rng(seed).permutation(len(strata))
    fold = deal_folds(strata, folds, order)
    for some in (fold, *(fold[strata == stratum] for stratum in set(strata))):
        assert np.ptp(np.bincount(some, minlength=folds)) <= 1


def test_folds_validate_as_the_ratio_says():
    table = cohort([40, 60])
    counts = subject_counts(table, make_fold(table, 2, 5, kind="subject", ratio=(3, 1, 9)))
    assert counts.to_numpy().tolist() == [[24, 8, 8], [36, 12, 12]]


@pytest.mark.parametrize("kind", ["subject", "slice"])
def test_folds_are_written_once(tmp_path, kind):
    table = cohort([6, 6], slices=2)
    paths = [tmp_path / f"{fold}.tsv" for fold in range(3)]
    for fold, path in enumerate(paths):
        ensure_split(path, table, kind=kind, fold=(fold, 3))
    assert len({path.read_bytes() for path in paths}) == 3
    again = ensure_split(paths[0], table, kind=kind, fold=(0, 3), seed=9)
    np.testing.assert_array_equal(again, make_fold(table, 0, 3, kind=kind))


@pytest.mark.parametrize(
    ("sizes", "fold", "reason"),
    [
        (
            [5, 4],
            (0, 5),
            "5 folds by subject need at least 5 subjects of each class, .* 4 of class1",
        ),
        ([5, 3], (0, 2), "2 folds by subject need at least 4 subjects"),
        ([5, 5], (5, 5), "Unknown fold 5 of 5"),
        ([5, 5], (0, 1), "Unknown fold 0 of 1"),
    ],
)
def test_folds_that_cannot_be_are_refused(sizes, fold, reason):
    with pytest.raises(InputError, match=reason):
        for number in range(fold[1]) if fold == (0, fold[1]) and fold[1] > 1 else fold[:1]:
            make_fold(cohort(sizes), number, fold[1], kind="subject")


@pytest.mark.parametrize("slices", [1, 4])
def test_the_same_seed_writes_the_same_file(tmp_path, slices):
    for sessions in (0, 1, 3):
        table = cohort([7, 9, 4], sessions, slices)
        for kind in ("subject", "slice"):
            written = []
            for n in (0, 1):
                path = tmp_path / f"{sessions}{kind}{n}.tsv"
                ensure_split(path, table.sample(frac=1, random_state=n), kind=kind, seed=3)
                written.append(path.read_bytes())
            assert written[0] == written[1]


def people(table):
    rng = np.random.default_rng(5)
    ids = sorted(set(table["subject_id"]))
    return pd.DataFrame(
        {
            "subject_id": ids,
            "Age": [f"{age:.0f}" for age in rng.normal(75, 8, len(ids))],
            "Sex": rng.choice(["F", "M"], len(ids)),
        }
    )


def test_p_values_of_balance_agree_with_scipy():
    table = cohort([30, 30])
    subset, covariates = make_split(table, kind="subject"), people(table)
    found = balance_of(table, subset, covariates).set_index("column")
    first = table.assign(subset=subset).drop_duplicates("subject_id").merge(covariates)
    ages = [group["Age"].astype(float) for _, group in first.groupby("subset")]
    assert found.loc["Age", "p"] == pytest.approx(stats.kruskal(*ages).pvalue)
    counts = pd.crosstab(first["Sex"], first["subset"])
    assert found.loc["Sex", "p"] == pytest.approx(stats.chi2_contingency(counts).pvalue)
    assert found["test"].tolist() == ["Kruskal-Wallis", "chi-squared"]
    same = covariates.assign(Age="70", Sex="F")
    assert balance_of(table, subset, same)["p"].tolist() == [1.0, 1.0]
    gaps = covariates.assign(Age=covariates["Age"].mask(covariates.index % 2 == 0, "n/a"))
    assert balance_of(table, subset, gaps)["test"].tolist()[0] == "Kruskal-Wallis"


def test_a_balanced_split_is_better_balanced_and_as_fair():
    table = cohort([30, 36])
    covariates = people(table)
    for seed in range(2):
        plain = make_split(table, kind="subject", seed=seed)
        even = make_split(table, kind="subject", seed=seed, covariates=covariates)
        smallest = [balance_of(table, s, covariates)["p"].min() for s in (plain, even)]
        assert smallest[1] > max(smallest[0], 0.7)
        pd.testing.assert_frame_equal(subject_counts(table, plain), subject_counts(table, even))
    again = make_split(table, kind="subject", seed=seed, covariates=covariates)
    np.testing.assert_array_equal(even, again)
    with pytest.raises(InputError, match="Only a split by subject can be balanced"):
        make_split(table, kind="slice", covariates=covariates)


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_a_split_made_elsewhere_is_copied_and_checked(tmp_path, suffix):
    table = cohort([5, 5], slices=2)
    wanted = make_split(table, kind="subject", seed=4)
    source = tmp_path / f"mine.{suffix}"
    mine = table[["subject_id"]].assign(subset=wanted).drop_duplicates()
    mine.to_csv(source, sep="\t" if suffix == "tsv" else ";", index=False)
    path = tmp_path / "splits" / "s.tsv"
    np.testing.assert_array_equal(ensure_split(path, table, kind="subject", source=source), wanted)
    np.testing.assert_array_equal(ensure_split(path, table, kind="subject"), wanted)
    other = mine.assign(subset=mine["subset"].to_numpy()[::-1])
    other.to_csv(source, sep="\t" if suffix == "tsv" else ";", index=False)
    with pytest.raises(InputError, match=r"s\.tsv differs from .*mine"):
        ensure_split(path, table, kind="subject", source=source)
    leak = pd.concat(
        [mine, mine.iloc[:1].assign(subset="test"), mine.iloc[:1].assign(subset="val")]
    )
    leak.to_csv(source, sep="\t" if suffix == "tsv" else ";", index=False)
    with pytest.raises(LeakageError, match=r"mine\..sv leaks: s0-0 is in two subsets"):
        ensure_split(tmp_path / "new.tsv", table, kind="subject", source=source)
    assert not (tmp_path / "new.tsv").exists()
    with pytest.raises(InputError, match="nowhere"):
        ensure_split(path, table, kind="subject", source=tmp_path / "nowhere.tsv")


@pytest.mark.parametrize(
    ("encoding", "separator", "line_end"),
    [
        ("utf-8-sig", "\t", "\r\n"),
        ("utf-16", "\t", "\n"),
        ("utf-8", ",", "\r"),
        ("cp1252", ";", "\n"),
    ],
)
@pytest.mark.parametrize("suffix", ["tsv", "csv", "txt"])
def test_a_split_file_is_read_as_other_programs_write_it(
    tmp_path, encoding, separator, line_end, suffix
):
    table = cohort([5, 5]).assign(subject_id=[f"Ö{n}" for n in range(10)])
    wanted = make_split(table, kind="subject", seed=4)
    mine = table[["subject_id"]].assign(subset=[f"{name} " for name in wanted])
    text = mine.to_csv(sep=separator, index=False, lineterminator=line_end)
    source = tmp_path / f"mine.{suffix}"
    source.write_bytes(text.encode(encoding))
    stored = ensure_split(tmp_path / "s.tsv", table, kind="subject", source=source)
    np.testing.assert_array_equal(stored, wanted)
    assert check_source(source, table) == []


def test_a_split_file_is_held_against_the_scans_before_they_are_sliced(tmp_path):
    table, source = cohort([5, 5]), tmp_path / "mine.csv"
    mine = table[["subject_id"]].assign(subset=make_split(table, kind="subject", seed=4))

    def check(rows):
        rows.to_csv(source, index=False)
        return check_source(source, table)

    stranger = pd.DataFrame({"subject_id": ["x9"], "subset": ["test"]})
    (note,) = check(pd.concat([mine, stranger]))
    assert note == f"Of the subjects in {source} x9 is not among the scans."
    training = mine[mine["subset"] == "train"]
    (note,) = check(mine.drop(training.index[0]))
    assert note.endswith(
        f"lacks {training['subject_id'].iloc[0]}: without a subset their slices are refused."
    )
    with pytest.raises(InputError, match=r"names sub-s0-0, sub-s0-1 and 8 more, and .* show s0-0"):
        check(mine.assign(subject_id="sub-" + mine["subject_id"]))
    with pytest.raises(InputError, match=r"leaves the subset val .*class0' and every other"):
        check(mine.replace("val", "train"))
    with pytest.raises(LeakageError, match="s0-0 is in two subsets"):
        check(
            pd.concat(
                [mine, mine.iloc[:1].assign(subset="test"), mine.iloc[:1].assign(subset="val")]
            )
        )
    source.write_text("subject_id,subset\n")
    with pytest.raises(
        InputError, match=r"mine\.csv is no split: it holds no rows below its header\.$"
    ):
        check_source(source, table)


def test_pictures_without_ids_are_pointed_to_the_partition_of_their_folders():
    table = pd.DataFrame({"subject_id": [NO_ID, NO_ID]})
    with pytest.raises(InputError, match="inferred, or use --splits slice"):
        check_ids(table, "subject")
    with pytest.raises(InputError, match="with --splits given, or use --splits slice"):
        check_ids(table.assign(given=["train", "test"]), "subject")

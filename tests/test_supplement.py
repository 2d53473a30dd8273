"""What `headscope figures` writes says what the record holds, number by number."""

import json
import re
import shutil
import subprocess
import tomllib
import zlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.settings import choose_apart
from headscope.errors import InputError
from headscope.figures.style import COLUMN, MM, PAGE
from headscope.files import read_table, write_json, write_table
from headscope.metrics import DRAWS
from headscope.record import read_experiment, write_failures
from headscope.supplement import answers, export, write
from headscope.supplement.answers import ANSWERS, cautions
from headscope.supplement.card import model_card
from headscope.supplement.characteristics import (
    ALIKE,
    NAMELESS,
    SHARED,
    characteristics,
    characteristics_table,
    independence,
    location,
    unrecorded,
)
from headscope.supplement.checklists import LISTS, checklist
from headscope.supplement.flow import _amount, flow, flow_frame, plot_flow
from headscope.supplement.methods import methods
from headscope.supplement.pictures import pictures
from headscope.supplement.prose import CITATION, Facts, Prose, references
from headscope.supplement.recipes import aggregates, missing_words, varied
from headscope.supplement.study import read_study
from headscope.text import percent
from tests.support.commands import headscope_here
from tests.support.records import reseal
from tests.support.synthetic import write_experiment

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)*(?:e-?\d+)?")
EVEN = [[30, 20], [20, 30]]
SMALL = {"width": 16, "subjects": 24, "slices_each": 4, "epochs": 2}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Few permutations and coarse pictures: neither is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        few = partial(stored_leakage, permutations=3)
        patch.setattr("headscope.supplement.study.stored_leakage", few)
        patch.setattr("headscope.analysis.leakage.dose_response.DRAWS", 1)
        patch.setattr("headscope.supplement.export.DPI", 72)
        yield


def describe(folder):
    """Put beside runs what a real experiment has: slices, participants, versions, a failed run."""
    ids = sorted(set(read_experiment(folder)[0].predictions["subject_id"]))
    rng = np.random.default_rng(0)
    age, sex = rng.integers(60, 90, len(ids)), rng.choice(["F", "M"], len(ids))
    table = {"subject_id": ids, "session_id": "ses-1", "label": "AD", "age": age, "sex": sex}
    write_table(folder / "participants.tsv", pd.DataFrame(table))
    notes = ["OASIS-2: 27 scans of 24 subjects.", "Left out by Group: Converted (37 scans).",
             "Subject ids come from the pattern in the names, not from the layout.",
             "3 of 27 scans could not be used; problems.tsv says why."]  # fmt: skip
    about = {"left_out": notes[1:2], "classes_by": ["Classes by Group: AD = Demented."]}
    slices = {"layout": "OASIS-2", "scans": 27, "notes": notes, "window": [1.0, 98.0], **about}
    write_json(folder / "slices" / "slices.json", slices)
    reasons = ["is damaged", "holds one value", "holds one value"]
    problems = pd.DataFrame({"path": ["a", "b", "c"], "reason": reasons})
    write_table(folder / "slices" / "problems.tsv", problems)
    packages = {"headscope": "0.2.0", "torch": "2.14.1"}
    write_json(folder / "environment.json", {"python": "3.11.7", "packages": packages})
    write_failures(folder, {"vgg19-frozen-subject-seed0": "Out of memory."})
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return describe(write_experiment(tmp_path_factory.mktemp("paper"), **SMALL))


@pytest.fixture(scope="module")
def study(experiment):
    return read_study(experiment)


@pytest.fixture(scope="module")
def paper(experiment):
    """Everything but the figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_write_pictures", lambda study, folder: None)
        return write.write_figures(experiment)


@pytest.fixture(scope="module")
def drawn(experiment, tmp_path_factory):
    """The figures at 85 mm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "WIDTHS", {"85mm": COLUMN})
        return write.write_figures(experiment, tmp_path_factory.mktemp("drawn"))


def recorded(folder, file, key):
    """Return what the record holds under the key of a fact, as a set of texts or numbers."""
    if file == "headscope":
        return {{"metrics.DRAWS": DRAWS, "metrics.intervals.LEVEL": 95}[key]}
    values = set()
    for path in [folder / file] if "*" not in file else sorted(folder.glob(file)):
        if path.suffix == ".toml":
            value = tomllib.loads(path.read_text("utf-8"))
        elif path.suffix == ".json":
            value = json.loads(path.read_text("utf-8"))
        else:
            values.add(counted(read_table(path), key))
            continue
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        values |= set(value) | {len(value)} if isinstance(value, list) else {value}
    return values


def counted(table, key):
    """Return what a key such as 'distinct subject_id of test' counts in a table."""
    if key == "label":
        return frozenset(table["label"])
    what, _, of = key.partition(" of ")
    if of == "several labels":
        pairs = table[["subject_id", "label"]].drop_duplicates()
        return int((pairs["subject_id"].value_counts() > 1).sum())
    if of:
        name = of.removeprefix("label ")
        table = table[table["subset" if name in ("train", "val", "test") else "label"] == name]
    columns = what.removeprefix("distinct ").split(" and ")
    return len(table) if what == "rows" else len(table.drop_duplicates(columns))


def check_facts(facts, folder):
    assert facts.shown
    for fact in facts.shown:
        expected = recorded(folder, fact.file, fact.key)
        flat = {
            part
            for value in expected
            for part in (value if isinstance(value, frozenset) else [value])
        }
        assert fact.value in flat, fact


def check_numbers(text, facts):
    """Assert that a text without what it shows of the record holds no number."""
    for fact in sorted(facts.shown, key=lambda fact: -len(fact.text)):
        text = text.replace(fact.text, " ")
    assert not NUMBER.search(text), NUMBER.findall(text)


def test_each_number_of_the_methods_is_the_records(study, experiment):
    facts = Facts()
    prose = methods(study, facts)
    check_facts(facts, experiment)
    text = " ".join(paragraph for _, paragraph in prose.paragraphs)
    check_numbers(CITATION.sub("", text), facts)
    assert "24 subjects" in text and "96 slices" in text and "3 scans could not be used" in text
    assert "AD (12 subjects) and NC (12 subjects)" in text
    assert "simulated" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [([1], ", for 1 epoch"), ([2], ", for 2 epochs"), ([1, 2], ", for 1 or 2 epochs")],
)
def test_one_is_no_plural(values, text):
    study = SimpleNamespace(values=lambda _: values)
    words = varied(study, lambda value, *_: f"{value:g}", "epochs", ", for {} epochs")
    assert words.removesuffix(" (by row of the table of results)") == text


def test_methods_are_the_same_in_every_form_and_cite_what_is_listed(paper, study):
    forms = {name: (paper / f"methods.{name}").read_text("utf-8") for name in ("txt", "md", "tex")}
    cited = Prose(methods(study, Facts()).paragraphs).cited
    markdown = re.findall(r"@(\w+)", forms["md"])
    latex = [
        key for keys in re.findall(r"\\cite\{([^}]*)\}", forms["tex"]) for key in keys.split(",")
    ]
    assert list(dict.fromkeys(markdown)) == list(dict.fromkeys(latex)) == cited
    bibtex = (paper / "references.bib").read_text("utf-8")
    entries = set(re.findall(r"^@\w+\{(\w+),", bibtex, re.M))
    assert entries == {*cited, "tejani2024", "collins2024", "mitchell2019"}
    assert bibtex.count("{") == bibtex.count("}")
    plain = re.sub(r" \((?:[\w-]+ (?:et al\. |and [\w-]+ )?\d{4}(?:; )?)+\)", "", forms["txt"])
    numbers = NUMBER.findall(plain)
    assert numbers == NUMBER.findall(CITATION.sub("", forms["md"].replace("\\", "")))
    assert numbers == NUMBER.findall(re.sub(r"~?\\cite\{[^}]*\}", "", forms["tex"]))
    assert "Khagi and Kwon 2022" in forms["txt"] and "He et al." not in forms["txt"]
    listed = read_table(paper / "methods-numbers.tsv")
    assert set(numbers) <= {n for text in listed["text"].astype(str) for n in NUMBER.findall(text)}


def test_all_references_have_author_title_and_year():
    entries = references(sorted(set(re.findall(r"^@\w+\{(\w+),", _bibliography(), re.M))))
    for entry in entries.split("\n\n"):
        assert all(f"{name} = {{" in entry for name in ("author", "title", "year")), entry
    source = "".join(path.read_text("utf-8") for path in write_sources())
    used = {key for keys in CITATION.findall(source) for key in re.findall(r"\w+", keys)}
    assert used <= set(re.findall(r"^@\w+\{(\w+),", _bibliography(), re.M)) | {"key"}


def _bibliography():
    return (export.Path(export.__file__).with_name("references.bib")).read_text("utf-8")


def write_sources():
    return sorted(export.Path(export.__file__).parent.glob("*.py"))


def cells_of(latex):
    """Return the cells of a table in LaTeX, its signs undone."""
    rows = re.search(r"\\toprule\n(.*)\\bottomrule", latex, re.S)[1].replace("\\midrule\n", "")
    undone = rows.replace("$-$", "−").replace("--", "–")
    for sign in "&%$#_{}":
        undone = undone.replace(f"\\{sign}", {"&": "\0"}.get(sign, sign))
    return [[cell.strip().replace("\0", "&") for cell in line.removesuffix(r" \\").split(" & ")]
            for line in undone.strip().splitlines()]  # fmt: skip


def test_the_table_in_latex_holds_the_values_of_the_tsv(paper, study):
    heading, *rows = cells_of((paper / "table.tex").read_text("utf-8"))
    table = read_table(paper / "table.tsv")
    assert len(rows) == len(table) == len(study.results)
    assert r"\toprule" in (paper / "table.tex").read_text("utf-8")
    place = {name.split(" (%)")[0].split(" [95%")[0]: k for k, name in enumerate(heading)}
    for cells, row in zip(rows, table.to_dict("records"), strict=True):
        assert cells[place["Network"]] == row["architecture"]
        for name, form, scale in (("slice_accuracy", ".1f", 100), ("subject_accuracy", ".1f", 100),
                                  ("subject_auc", ".3f", 1)):  # fmt: skip
            cell = cells[place[f"Test {name.replace('_', ' ').replace('auc', 'AUC')}"]]
            value, low, high = (row[f"test_{name}{end}"] for end in ("", "_low", "_high"))
            if np.isnan(low) and name == "subject_accuracy":
                low, high = row[f"test_{name}_wilson_low"], row[f"test_{name}_wilson_high"]
            expected = f"{scale * value:{form}}"
            if not np.isnan(low):
                expected += f" [{scale * low:{form}}–{scale * high:{form}}]"
            assert cell == expected
    assert rows == [line.strip("| ").split(" | ") for line in
                    (paper / "table.md").read_text("utf-8").splitlines()[2 : 2 + len(rows)]
                    ] or any("" in row for row in rows)  # fmt: skip


def test_table_1_counts_and_tests_are_those_of_the_arrays(study, experiment, paper):
    run = study.main
    frame = read_table(paper / "table1.tsv").set_index(["characteristic", "subset"])
    people = read_table(experiment / "participants.tsv").set_index("subject_id")
    once = run.predictions.drop_duplicates("subject_id").set_index("subject_id").join(people["age"])
    once["sex"] = people["sex"]
    for subset in ("train", "val", "test"):
        inside = once[once["subset"] == subset]
        assert frame.loc[("Subjects", subset), "count"] == len(inside)
        assert frame.loc[("Slices", subset), "count"] == 4 * len(inside)
        assert frame.loc[("Class, AD", subset), "count"] == (inside["label"] == "AD").sum()
        assert frame.loc[("Sex, F", subset), "count"] == (inside["sex"] == "F").sum()
        assert frame.loc[("Age, years", subset), "mean"] == pytest.approx(inside["age"].mean())
        assert frame.loc[("Age, years", subset), "sd"] == pytest.approx(inside["age"].std())
    groups = [part["age"] for _, part in once.groupby("subset")]
    assert frame.loc[("Age, years", "all"), "p"] == pytest.approx(stats.kruskal(*groups).pvalue)
    assert frame.loc[("Age, years", "all"), "test"] == "Kruskal-Wallis"
    counts = pd.crosstab(once["sex"], once["subset"]).to_numpy()
    resampled = stats.PermutationMethod(n_resamples=2000, rng=1)
    exact = stats.fisher_exact(counts, method=resampled)
    assert frame.loc[("Sex, F", "all"), "test"] == "Fisher, resampled"
    assert frame.loc[("Sex, F", "all"), "p"] == pytest.approx(exact.pvalue, abs=0.05)
    latex = cells_of((paper / "table1.tex").read_text("utf-8"))
    assert latex[1][:5] == ["Subjects", "24", *(str((once["subset"] == s).sum()) for s in
                                                ("train", "val", "test"))]  # fmt: skip
    assert (paper / "table1-splits.tsv").is_file()  # the split by slice has one of its own


@pytest.mark.parametrize(
    ("counts", "name", "p"),
    [
        (EVEN, "chi-squared", stats.chi2_contingency(EVEN, correction=False).pvalue),
        ([[3, 1], [1, 4]], "Fisher", stats.fisher_exact([[3, 1], [1, 4]])[1]),
        ([[5, 5, 5]], ALIKE, np.nan),
        ([[5, 0], [3, 0]], ALIKE, np.nan),
        (np.zeros((0, 3), int), ALIKE, np.nan),
    ],
)
def test_shares_are_tested_as_their_counts_allow(counts, name, p):
    test, value = independence(counts)
    assert test == name and value == pytest.approx(p, nan_ok=True)


@pytest.mark.parametrize(
    ("groups", "name"),
    [
        ([[60, 70, 80], [61, 75, 82], [66, 67, 90]], "Kruskal-Wallis"),
        ([[60, 70, 80], [61, 75, 82]], "Welch's t"),
        ([[60, 70, 80], [61]], "not tested: one subject in a subset"),
        ([[70, 70], [70, 70], [70, 70]], ALIKE),
        ([[70, 70], [80, 80]], "not tested: no spread within the subsets"),
        ([[60, 70]], ALIKE),
        ([], ALIKE),
    ],
)
def test_ages_are_tested_as_their_groups_allow(groups, name):
    test, p = location([np.array(group, float) for group in groups])
    assert test == name
    if name == "Welch's t":
        assert p == pytest.approx(stats.ttest_ind(*groups, equal_var=False).pvalue)
    assert np.isnan(p) == (name == ALIKE or name.startswith("not tested"))


def test_a_split_that_shares_subjects_is_not_tested(study):
    run = next(run for run in study.runs if run.setting.split == "slice")
    rows = characteristics(run, study.participants)
    assert {row.test for row in rows if row.test} == {SHARED}
    assert all(np.isnan(row.p) for row in rows)


@pytest.mark.parametrize(("name", "items"), [("CLAIM 2024", 44), ("TRIPOD+AI", 27)])
def test_checklists_are_whole_and_their_numbers_the_records(name, items, study, paper, experiment):
    facts = Facts()
    table = checklist(name, study, facts).to_frame()
    assert len({re.match(r"\d+", item)[0] for item in table["Item"]}) == items
    assert set(table["Answered by"]) <= {"record", "author", "not done"}
    assert (table.loc[table["Answered by"] == "record", "Answer"] != "").all()
    stored = read_table(paper / f"{LISTS[name]}.tsv")
    assert stored["Answer"].fillna("").tolist() == table["Answer"].tolist()
    names = [run.name for run in study.runs] + ["Table 1", "two-dimensional"]
    notes = study.slices["notes"]
    for answer in table["Answer"]:
        for known in [*names, *notes]:
            answer = answer.replace(known, "")
        check_numbers(answer, facts)
    scores = {fact.key: fact for fact in facts.shown if fact.file == "table.tsv"}
    row = study.table.set_index("run").loc[study.chosen[0].key]
    assert scores
    for key, fact in scores.items():
        column = key.partition(", ")[2]
        if column.startswith(("test_", "subject_majority")):
            expected = row[column]
            if np.isnan(expected):
                expected = row[re.sub("_(low|high)$", r"_wilson_\1", column)]
            assert fact.value == pytest.approx(expected)
    run = study.chosen[0].runs[0]
    value = run.metrics["test"]["subject_accuracy"]["value"]
    assert f"subject accuracy {percent(value)}%" in " ".join(table["Answer"])


def test_every_answer_of_the_checklists_is_there():
    items = read_table(export.Path(export.__file__).with_name("checklists.tsv"))
    assert set(items["answer"]) - {"author"} == set(ANSWERS)


def test_the_flow_counts_what_is_on_record_and_gives_reasons(study, paper):
    boxes = flow(study)
    frame = flow_frame(boxes)
    reasons = set(frame.loc[frame["kind"] == "left out", "reason"]) - {""}
    assert reasons == {"Left out by Group: Converted (37 scans).", "2: holds one value",
                       "1: is damaged"}  # fmt: skip
    counts = frame.dropna(subset="count").set_index(["title", "unit"])["count"]
    assert counts["Scans with a class: 27", "scans"] == 27
    assert counts["Could not be used: 3", "scans"] == 3
    assert counts["Slices taken", "subjects"] == 24 and counts["Slices taken", "slices"] == 96
    parts = [counts[name, "slices"] for name in ("Training", "Validation", "Test")]
    assert sum(parts) == 96
    shown = " ".join(text.get_text() for text in plot_flow(boxes).findobj(mpl.text.Text))
    assert "Could not be used: 3" in shown


def test_one_subject_is_no_subjects():
    assert [_amount(n, "subjects of AD") for n in (0, 1, 2)] == [
        "0 subjects of AD", "1 subject of AD", "2 subjects of AD"]  # fmt: skip


def test_slices_of_an_earlier_version_do_not_say_what_was_left_out(study):
    slices = {key: value for key, value in study.slices.items() if key != "left_out"}
    earlier = replace(study, slices=slices)
    box = next(box for box in flow(earlier) if box.title == "Left out")
    assert box.lines == ("Not on record: an earlier version took the slices.",)
    statuses = [answers.answer("eligibility", one, Facts()).status for one in (study, earlier)]
    assert statuses == ["record", "author"]
    damaged = replace(study, slices=dict.fromkeys(study.slices))
    assert damaged.left_out == damaged.classes_by == []


def test_the_card_says_what_it_is_for_and_what_weakens_it(study):
    facts = Facts()
    card = model_card(study, facts)
    for title in ("Intended use", "Data", "Training", "Evaluation", "Cautions"):
        assert f"\n## {title}\n" in card
    assert "no medical device" in card and "The cohort is simulated." in card
    assert "Runs that failed and have no results: 1." in card
    assert f"headscope predict {study.name}/runs/" in card
    assert "The report has scores by age and sex, of groups" in card
    one = replace(study, participants=study.participants.assign(age=70.0, site=None))
    assert "The report has scores by sex, of groups" in model_card(one, Facts())
    assert study.chosen[0].apart  # a setting that mixes subjects is not the one to describe


def sizes_of(pdf):
    """Return the sizes of the fonts that the pages of a PDF set text in."""
    sizes = set()
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        try:
            text = zlib.decompress(stream)
        except zlib.error:
            continue
        sizes |= {float(size) for size in re.findall(rb"/F\d+-?\w* ([\d.]+) Tf", text)}
    return sizes


def test_fonts_are_text_of_seven_points_in_every_pdf(drawn):
    paths = sorted(drawn.glob("*-85mm.pdf"))
    assert {path.name.removesuffix("-85mm.pdf") for path in paths} >= {
        "flow", "fig2-logits", "fig3-weights", "accuracies", "leak-gap", "roc", "calibration"
    }  # fmt: skip
    for path in paths:
        pdf = path.read_bytes()
        assert min(sizes_of(pdf)) >= 7, path
        width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf)[1])
        assert width == pytest.approx(85 / 25.4 * 72, abs=0.1)


def test_a_checklist_tells_what_balances_classes_sites_and_other_cohorts(study, monkeypatch):
    def said(name, study=study):
        reply = answers.answer(name, study, Facts())
        return reply.status, reply.text

    assert said("clusters")[0] == "not done" and said("external")[0] == "not done"
    assert said("imbalance")[1].startswith("No class was weighted")
    of_sites = replace(study, participants=study.participants.assign(site="site 1"))
    assert said("clusters", of_sites) == ("author", "Sites are on record, in participants.tsv.")
    elsewhere = [
        SimpleNamespace(name=name, overlap=SimpleNamespace(heads=heads))
        for name, heads in (("adni", ()), ("mine", ("one",)))
    ]
    monkeypatch.setattr(answers, "find_evaluations", lambda folder: (elsewhere, {}))
    assert "cohorts from elsewhere: adni and mine;" in said("external")[1]
    assert said("external")[1].endswith("Heads of mine are in the experiment too.")
    monkeypatch.setattr(type(study), "values", lambda self, key: ["balanced", "weighted"])
    assert said("imbalance")[1].startswith("Slices were weighed so that classes count alike")


@pytest.mark.skipif(not shutil.which("pdffonts"), reason="needs pdffonts of poppler-utils")
def test_pdffonts_finds_embedded_truetype_fonts(drawn):
    paths = [*drawn.glob("*-85mm.pdf")]
    assert len(paths) > 6
    for path in paths:
        shown = subprocess.run(["pdffonts", path], capture_output=True, text=True, check=True)
        lines = shown.stdout.splitlines()[2:]
        assert lines and all("TrueType" in line and "Type 3" not in line for line in lines)
        assert all("DejaVuSans" in line for line in lines)


def test_svg_holds_text_as_text_and_data_stand_beside_each_figure(drawn, study):
    for path in drawn.glob("*-85mm.svg"):
        assert "<text" in path.read_text("utf-8")
        stem = path.name.removesuffix("-85mm.svg")
        assert (drawn / f"{stem}-85mm.png").is_file()
        assert len(read_table(drawn / f"{stem}.tsv"))
        assert f"**{stem}.**" in (drawn / "captions.md").read_text("utf-8")
    assert "Logit of NC" in (drawn / "fig2-logits-85mm.svg").read_text("utf-8")
    data = read_table(drawn / "fig2-logits.tsv")
    for result in study.results:
        title = f"{result.name}, {result.split} split"
        mine = data[data["setting"] == title]
        assert mine["correct"].mean() == pytest.approx(result.scores["slice_accuracy"].value)


def test_the_same_record_gives_the_same_bytes(study, tmp_path):
    picture = next(picture for picture in pictures(study) if picture.name == "accuracies")
    for name in ("a", "b"):
        assert len(export.export(picture.draw, tmp_path / name / "x")) == 6
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def legible(figure):
    figure.draw_without_rendering()
    sizes = [text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()]
    return not sizes or min(sizes) >= 7


CASES = {
    "folds and seeds": {
        "runs": [{"seed": seed, "fold": (k, 3)} for seed in (0, 1) for k in (0, 1, 2)],
        "true": [
            "into 3 folds, each tested once (seeds 0 and 1)",
            "In the first fold of seed 0, ",
            "Repeats over seeds",
        ],
    },
    "three classes": {
        "runs": [{"regime": "frozen", "class_names": ("NC", "MCI", "AD")}],
        "true": ["AD (8 subjects), MCI (8 subjects) and NC (8 subjects)", "each class against"],
    },
    "seven classes": {
        "runs": [{"regime": "frozen", "class_names": tuple("ABCDEFG"), "subjects": 49}],
        "true": ["A (7 subjects)"],
    },
    "one run": {"runs": [{"regime": "frozen"}], "true": ["momentum 0.9"]},
    "no initial head": {"runs": [{"record_initial": False}], "true": ["momentum 0.9"]},
    "a hostile name": {
        "runs": [{"name": "a_b$x%<script>&" + 40 * "z", "class_names": ("N$_^C", "A|D")}],
        "true": ["A|D (12 subjects)"],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_experiment_is_described_and_drawn(case, tmp_path):
    write_experiment(tmp_path, CASES[case]["runs"], **SMALL)
    study = read_study(tmp_path)
    facts = Facts()
    prose = methods(study, facts)
    text = " ".join(paragraph for _, paragraph in prose.paragraphs)
    for sentence in CASES[case]["true"]:
        assert sentence in text
    check_facts(facts, tmp_path)
    check_numbers(CITATION.sub("", text), facts)
    assert r"\paragraph{Data.}" in prose.to_latex()
    for name in LISTS:
        checklist(name, study, Facts())
    assert "Table 1" in model_card(study, Facts())
    drawn = {picture.name: picture for picture in pictures(study)}
    for picture in drawn.values():
        for width in (COLUMN, PAGE):
            figure = export.fit(picture.draw(width), width)
            assert legible(figure) and figure.get_figwidth() == width, picture.name
    data = drawn["fig2-logits"].data
    if case != "folds and seeds":
        assert data["correct"].mean() == pytest.approx(study.table["test_slice_accuracy"][0])
    tested = sum(len(run.predicted("test")) for run in study.runs if run.setting.seed == 0)
    assert len(data) == tested  # each slice once, whatever the number of classes


@pytest.mark.parametrize(
    ("seeds", "folds", "split"),
    [
        ((0,), [None], "subject"),
        ((0, 1), [None], "subject"),
        ((0,), [(0, 3), (1, 3)], "subject"),
        ((0,), [(0, 3), (1, 3)], "slice"),  # each subject is tested in both folds
    ],
)
def test_the_methods_name_the_tests_by_which_settings_are_compared(seeds, folds, split, tmp_path):
    fits = [{"seed": seed} | ({"fold": fold} if fold else {}) for seed in seeds for fold in folds]
    regimes = ({"regime": regime} for regime in ("frozen", "finetune"))
    runs = [regime | fit | {"same_split": True} for regime in regimes for fit in fits]
    runs = [run | {"split": split} for run in runs]
    write_experiment(tmp_path, runs, **SMALL)
    study = read_study(tmp_path)
    (row,) = compare_runs(study.runs).rows
    words = {
        "McNemar's exact test": "mcnemar",
        "DeLong's test": "delong",
        "bootstrap over subjects": "bootstrap",
    }
    assert study.tests == ([words[row.subject_accuracy.test]], [words[row.subject_auc.test]])
    text = methods(study, Facts()).to_text()
    assert ("DeLong" in text) == (row.subject_auc.test == "DeLong's test")
    assert ("With seed 0, " in text) == (len(seeds) > 1)


def test_card_and_checklists_speak_of_the_setting_that_the_page_chose(tmp_path):
    fits = [{"split": "site", "fold": (k, 3), "name": "frozen"} for k in (0, 1)]
    write_experiment(tmp_path, [{"split": "subject"}, *fits], **SMALL)
    study = read_study(tmp_path)
    apart = [result for result in study.results if result.apart]
    assert len(apart) == 2
    assert study.chosen == (choose_apart(apart)[0], "")  # the only one of its split
    assert study.chosen[0].split == "site"
    said = ANSWERS["performance"](study, Facts())
    assert study.chosen[0].key in said and "validation chooses" not in said
    assert ANSWERS["robustness"](study, Facts()).startswith("Done: 3 folds; splits by site and by")
    clusters = ANSWERS["clusters"](replace(study, participants=pd.DataFrame()), Facts())
    assert "were split by site" in clusters


def test_how_slices_make_a_subject_is_said_of_each_kind_of_head():
    def result(name, way, architecture="net"):
        runs = [SimpleNamespace(settings={"aggregate": way})]
        is_rival = architecture != "net"
        return SimpleNamespace(name=name, architecture=architecture, runs=runs, is_rival=is_rival)

    networks = [result("frozen", "mean"), result("frozen-scan", "logits")]
    rivals = [result("rival", "logits", name) for name in ("majority", "pixels")]
    main = networks[0].runs[0]
    mean, logits = (f"the mean of the {of} of its slices" for of in ("probabilities", "logits"))
    alone = SimpleNamespace(everything=[networks[0], rivals[0]], main=main)
    assert aggregates(alone) == mean  # the larger class joins nothing
    study = SimpleNamespace(everything=[*networks, *rivals], main=main)
    assert aggregates(study) == f"{mean}, of frozen-scan and the regressions {logits}"


def test_pictures_without_ids_are_described_without_subjects(tmp_path):
    write_experiment(tmp_path, [{"split": "slice"}], **SMALL)
    for run in read_experiment(tmp_path):
        write_table(run.path / "predictions.tsv", run.predictions.assign(subject_id="unknown"))
        reseal(run.path)
    study = read_study(tmp_path)
    facts = Facts()
    text = methods(study, facts).to_text()
    assert "The pictures name no subjects" in text and " subjects (" not in text
    assert "neither accuracies over subjects nor intervals" in text
    check_facts(facts, tmp_path)
    rows = {row.name: row for row in characteristics(study.main, study.participants)}
    assert rows["Subjects"].entries["test"].text == "unknown"
    assert rows["Slices of NC"].test == NAMELESS
    assert "unknown" in characteristics_table(study.main, study.participants).to_markdown()
    for name in LISTS:
        answers = " ".join(checklist(name, study, Facts()).to_frame()["Answer"])
        assert "subject accuracy" not in answers
    units = {unit for box in flow(study) for unit, _ in box.counts}
    assert units == {"slices", "slices of NC", "slices of AD"}
    for picture in pictures(study):
        assert legible(picture.draw(COLUMN)), picture.name
    assert "roc" not in {picture.name for picture in pictures(study)}


def test_what_is_missing_of_covariates_is_said():
    def study(*columns):
        runs = [SimpleNamespace(settings={"covariates": list(columns)})]
        return SimpleNamespace(rivals=[SimpleNamespace(runs=runs)])

    assert missing_words(study("age", "sex=F")) == missing_words(SimpleNamespace(rivals=[])) == ""
    assert "median of the training scans" in missing_words(study("age", "age missing"))


def test_visits_of_inferred_subjects_are_not_counted(tmp_path):
    write_experiment(tmp_path, [{"regime": "frozen"}], **SMALL)
    said = dict(methods(read_study(tmp_path), Facts()).paragraphs)["Data"]
    assert "of 24 subjects in 24 sessions." in said
    run = read_experiment(tmp_path)[0]
    with (run.path / "run.toml").open("a") as file:
        file.write('subjects = "inferred-loose"\n')
    reseal(run.path)
    said = dict(methods(read_study(tmp_path), Facts()).paragraphs)["Data"]
    assert "of 24 subjects." in said and "sessions" not in said and "inferred" in said


def test_networks_that_predict_one_class_are_named(tmp_path):
    write_experiment(tmp_path, [{"regime": "frozen"}], **SMALL)
    run = read_experiment(tmp_path)[0]
    table = run.predictions.assign(predicted="NC", logit_NC=9.0, logit_AD=0.0)
    write_table(run.path / "predictions.tsv", table.assign(probability_NC=1.0, probability_AD=0.0))
    reseal(run.path)
    study = read_study(tmp_path)
    assert any("one class for all test slices: " in line for line in cautions(study, Facts()))
    claim = " ".join(checklist("CLAIM 2024", study, Facts()).to_frame()["Answer"])
    assert "The network predicts one class for all test slices." in claim
    forest = next(picture for picture in pictures(study) if picture.name == "accuracies")
    assert forest.data["one_class_runs"].tolist() == [1]
    shown = " ".join(text.get_text() for text in forest.draw(COLUMN).findobj(mpl.text.Text))
    assert "hollow: one class for all" in shown


def test_an_older_experiment_says_what_is_not_on_record(tmp_path):
    write_experiment(tmp_path, [{"regime": "frozen"}], **SMALL)
    study = read_study(tmp_path)
    assert "their number is not on record" in flow(study)[0].title
    assert (
        "Age and Sex: not recorded."
        in characteristics_table(study.main, study.participants).to_markdown()
    )
    assert any("not audited" in line for line in cautions(study, Facts()))
    assert "Software" not in dict(methods(study, Facts()).paragraphs)


def test_table_1_takes_sex_from_the_classes_where_they_are_the_sexes(tmp_path):
    """It is recorded then, once and as the class; where nothing has it, that is what is said."""
    write_experiment(tmp_path, [{"regime": "frozen"}], **SMALL | {"class_names": ("F", "M")})
    study = read_study(tmp_path)
    text = characteristics_table(study.main, study.participants).to_markdown()
    assert "Class, F" in text and "Age: not recorded." in text and "Sex" not in text
    ids = study.main.predictions["subject_id"].unique()
    people = pd.DataFrame({"subject_id": ids, "age": 70.0 + np.arange(len(ids))})
    text = characteristics_table(study.main, people).to_markdown()
    assert "Age, years" in text and "not recorded" not in text
    rows = characteristics(study.main, people)
    assert unrecorded(rows, ["AD", "NC"]) == ["Sex"] and unrecorded(rows, ["Male", "female"]) == []
    gaps = people.assign(age=people["age"].where(people.index > 2), sex=None)
    gaps.loc[4:, "sex"] = "F"
    text = characteristics_table(study.main, gaps).to_markdown()
    assert "Missing: age of 3 and sex of 4 subjects; shares and means are of the others." in text
    assert f"{len(ids) - 4} (100%)" in text  # of those whose sex is known
    assert "Missing" not in characteristics_table(study.main, people).to_markdown()
    one = people.assign(age=people["age"].where(people.index > 0))
    assert "Missing: age of 1 subject;" in characteristics_table(study.main, one).to_markdown()
    rows = characteristics(study.main, people.assign(sex=np.resize(["F", "M"], len(ids))))
    assert unrecorded(rows, ["AD", "NC"]) == []
    assert unrecorded([], ["AD", "NC"]) == ["Age", "Sex"]


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ('{"python": "3.12", "packages": {"headscope": 1}}', {"python": "3.12", "headscope": "1"}),
        ('{"pack', {}),
        ("[3]", {}),
    ],
)
def test_versions_that_cannot_be_read_are_left_out(text, versions, study, tmp_path):
    (tmp_path / "environment.json").write_text(text)
    assert read_study(tmp_path, study.results).versions == versions


def test_no_experiment_and_no_folder_are_one_sentence(tmp_path, experiment):
    with pytest.raises(InputError, match="is no experiment"):
        write.write_figures(tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="is a file: name a folder"):
        write.write_figures(experiment, tmp_path / "taken")


def test_widths_are_those_of_a_column_and_a_page():
    assert {name: width / MM for name, width in export.WIDTHS.items()} == pytest.approx(
        {"85mm": 85, "174mm": 174}
    )


def test_long_and_foreign_names_break_no_figure(tmp_path, monkeypatch):
    names = ("N" * 300, "健康 🙂 \u202eDA")
    write_experiment(tmp_path, [{"class_names": names, "name": "x" * 120}], **SMALL)
    monkeypatch.setattr(export, "WIDTHS", {"85mm": COLUMN})
    for picture in pictures(read_study(tmp_path)):
        assert len(export.export(picture.draw, tmp_path / picture.name)) == 3


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ({"window": [1.0, 98.0]}, "from percentile 1 to percentile 98 of the head"),
        ({"window": None, "percentiles": [1.0, 98.0]}, "percentile 1 to percentile 98"),
        ({"window": [0, 80], "percentiles": [1.0, 98.0]}, "from 0 to 80 in the units of the scan"),
        ({}, "pixels."),
    ],
)
def test_brightness_is_described_as_it_was_taken(slices, words, tmp_path):
    write_experiment(tmp_path, [{"regime": "frozen"}], **SMALL)
    write_json(tmp_path / "slices" / "slices.json", slices)
    run = read_experiment(tmp_path)[0]
    toml = (run.path / "run.toml").read_text("utf-8")
    facts = '\n[slicing]\nof = "scans"\ncount = 1\ncentre = "vertex:70mm"\n'
    (run.path / "run.toml").write_text(toml + facts, "utf-8")
    reseal(run.path)
    study = read_study(tmp_path)
    text = dict(methods(study, Facts()).paragraphs)["Slices"]
    assert words in text and "1 axial slice was taken, centred 70 mm below the vertex" in text


def test_the_command_prints_its_folder_and_names_what_is_no_experiment(
    experiment, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(write, "_write_pictures", lambda study, folder: None)
    command = partial(headscope_here, monkeypatch, capsys, "figures")
    done = command(experiment, "--out", tmp_path / "paper")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "paper"))
    assert (tmp_path / "paper" / "table.tex").is_file()
    refused = command(tmp_path)
    assert refused.returncode == 2 and "is no experiment" in refused.stderr

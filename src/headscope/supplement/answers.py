"""What the record answers to the items of a checklist, or that it has no answer."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import Final

from headscope.record.evaluation import find_evaluations
from headscope.supplement import methods
from headscope.supplement.characteristics import characteristics, unrecorded
from headscope.supplement.prose import Facts, listed
from headscope.supplement.recipes import aggregates, balancing_words, missing_words
from headscope.supplement.study import UNKNOWN, Study, count_classes

UNCHANGED: Final = (
    "The temperature of validation is reported beside the network, whose weights stay as they are."
)
RECORD, AUTHOR, NOT_DONE = "record", "author", "not done"


@dataclass(frozen=True)
class Answer:
    """Who answers an item ("record", "author", "not done"), and what the record says."""

    status: str
    text: str = ""


def answer(name: str, study: Study, facts: Facts) -> Answer:
    """Return the answer of a name in `checklists.tsv`.

    Raises
    ------
    KeyError
        There is no such answer.
    """
    if name == AUTHOR:
        return Answer(AUTHOR)
    result = ANSWERS[name](study, facts)
    if isinstance(result, Answer):
        return result
    return Answer(RECORD, result) if result else Answer(AUTHOR, "The record does not hold it.")


def performance(study: Study, facts: Facts, *names: str) -> str:
    """Say what the chosen setting reached on test, score by score."""
    result, by = study.chosen
    if result.nameless:
        names = tuple(name for name in names if name.startswith("slice"))
    row = f"row of {result.key}"
    parts = []
    for name in names:
        score = result.scores[name]
        if isnan(score.value):
            continue
        area = name.endswith("auc")
        form, unit = ("fraction", "") if area else ("percent", "%")
        text = f"{name.replace('_', ' ').replace('auc', 'AUC')} "
        text += f"{facts(score.value, 'table.tsv', f'{row}, test_{name}', form)}{unit}"
        if score.interval:
            low, high = score.interval
            text += f" (95% interval {facts(low, 'table.tsv', f'{row}, test_{name}_low', form)}"
            text += f" to {facts(high, 'table.tsv', f'{row}, test_{name}_high', form)})"
        parts.append(text)
    if not parts:
        return f"No score of {result.key} is defined on its test."
    chosen = f", which validation chooses by {by}" if by else ""
    runs = f"{len(result.constant)} of {len(result.runs)} runs predict"
    one = "The network predicts" if len(result.runs) == 1 else runs
    constant = f" {one} one class for all test slices." if result.constant else ""
    mixed = f" Its test is no test of unseen subjects: {result.marker}." if result.marker else ""
    return f"{result.key}{chosen}: {listed(parts)}.{constant}{mixed}"


def larger_class(study: Study, facts: Facts) -> str:
    """Say what predicting the larger class of the test alone gives."""
    result = study.chosen[0]
    level = "slice" if result.nameless else "subject"
    share = getattr(result.majority, f"{level}_share")
    if isnan(share):
        return ""
    key = f"row of {result.key}, {level}_majority"
    return (
        "Predicting the larger class of the test for all is correct for "
        f"{facts(share, 'table.tsv', key, 'percent')}% of its {level}s."
    )


def cautions(study: Study, facts: Facts) -> list[str]:
    """Say what weakens the results, as far as the record knows."""
    lines = []
    if study.simulated:
        lines.append("The cohort is simulated.")
    if not study.named:
        lines.append("The pictures name no subjects; subsets may share them.")
    if mixed := [result.key for result in study.results if result.shared_subjects]:
        lines.append(f"Subjects are in training and in test in {listed(mixed)}.")
    constant = [f"{result.key} ({len(result.constant)} of {len(result.runs)} runs)"
                for result in study.results if result.constant]  # fmt: skip
    if constant:
        lines.append(f"Networks predict one class for all test slices: {listed(constant)}.")
    if study.failures:
        count = facts(len(study.failures), "failures.tsv", "rows")
        lines.append(f"Runs that failed and have no results: {count}.")
    if study.audit is not None:
        lines += [f"{finding.check}: {finding.text}." for finding in study.audit.findings
                  if finding.level == "serious"]  # fmt: skip
    else:
        lines.append("The slices were not audited for duplicates and shortcuts.")
    if all(len(result.runs) == 1 for result in study.results):
        lines.append("Each setting was trained once; differences between trainings are unknown.")
    return [f"{line.rstrip('.')}." for line in lines]


def _technology(study: Study, facts: Facts) -> str:
    names = dict.fromkeys(run.setting.architecture for run in study.runs)
    shown = facts.listed(names, "runs/*/run.toml", "architecture")
    return f"Two-dimensional convolutional or other image networks, trained with labels: {shown}."


def _source(study: Study, facts: Facts) -> str:
    layout = study.slices.get("layout")
    if not layout:
        return ""
    text = f"Layout of the data: {facts(layout, 'slices/slices.json', 'layout')}."
    return " ".join([text, *(str(note) for note in (study.slices.get("notes") or [])[:1])])


def _eligibility(study: Study, facts: Facts) -> str | Answer:
    notes = [*study.classes_by, *study.left_out]
    if where := study.settings.get("where"):
        notes.insert(0, f"Scans were taken where {facts(where, 'experiment.toml', 'where')}.")
    return Answer(AUTHOR, " ".join(notes)) if UNKNOWN in notes else " ".join(notes)


def _pseudonyms(study: Study, facts: Facts) -> str | Answer:
    if study.main.settings.get("pseudonymised"):
        return "Ids of subjects and sessions are keyed hashes in all that is written."
    return Answer(AUTHOR, "Ids are those of the data.")


def _missing(study: Study, facts: Facts) -> str:
    if not study.slices:
        return ""
    count = facts(len(study.problems), "slices/problems.tsv", "rows")
    text = f"Scans that could not be used were left out: {count}. No image was imputed."
    return text + missing_words(study)


def _labels(study: Study, facts: Facts) -> Answer:
    names = facts.listed(study.class_names, "runs/*/run.toml", "class_names")
    return Answer(AUTHOR, " ".join([f"The classes are {names}.", *study.classes_by]))


def _apart(study: Study, facts: Facts) -> str:
    parts = []
    for way in dict.fromkeys(run.setting.split for run in study.runs):
        results = [result for result in study.results if result.split == way]
        text = "subjects: none of the test is in training"
        if any(result.nameless for result in results):
            text = "unknown, as the pictures name no subjects"
        elif shared := max(result.shared_subjects for result in results):
            number = facts(shared, "table.tsv", f"shared_subjects of {way}")
            text = f"none: up to {number} test subjects are in training too"
        parts.append(f"Split {_way(way)}: {text}.")
    if study.audit is not None:
        worst = max((check.duplicated for check in study.audit.splits), default=0)
        number = facts(worst, "audit.json", "splits.duplicated, the most")
        unit = study.audit.unit
        parts.append(f"Test {unit} with a duplicate under another id in training: {number}.")
    return " ".join(parts)


def _way(split: str) -> str:
    return "as the data give it" if split == "given" else f"by {split}"


def _sample_size(study: Study, facts: Facts) -> Answer:
    run = study.main
    if not run.named:
        return Answer(AUTHOR, "The pictures name no subjects.")
    subjects, file = run.predicted("test")["subject_id"], methods.run_file(run, "predictions.tsv")
    number = facts(subjects.nunique(), file, "distinct subject_id of test")
    return Answer(AUTHOR, f"The test holds {number} subjects; no size was planned on record.")


def _model(study: Study, facts: Facts) -> str:
    run, name = study.main, "slice_size"
    size = facts(run.settings.get(name, "?"), methods.run_file(run, "run.toml"), name)
    return (
        f"Input: one slice of {size} × {size} pixels; output: a logit for each of "
        f"{facts(len(study.class_names), 'runs/*/run.toml', 'class_names')} classes. "
        f"{methods.PARAGRAPHS['Networks'](study, facts)}"
    )


def _weights(study: Study, facts: Facts) -> str:
    users: dict[str, dict[str, None]] = {}
    for run in study.runs:
        if "weights" in run.settings:
            users.setdefault(str(run.settings["weights"]), {})[run.setting.variant] = None
    text = "; ".join(f"{listed([*variants])}: {source}" for source, variants in users.items())
    init = [str(value) for value in study.values("head_init")]
    head = [f"The classifier starts from {listed(init, 'or')}."] if init else []
    return " ".join([*([f"{text}."] if text else []), *head])


def _selection(study: Study, facts: Facts) -> str:
    result, by = study.chosen
    text = methods.kept_weights(study)
    if by:
        text += f" Among settings, validation chooses {result.key} by {by}; test plays no part."
    return text.strip()


def _robustness(study: Study, facts: Facts) -> str | Answer:
    done = []
    seeds = {run.setting.seed for run in study.runs}
    folds = {run.setting.folds for run in study.runs if run.setting.folds}
    if len(seeds) > 1:
        done.append(f"{facts(len(seeds), 'runs/*/run.toml', 'distinct seed')} seeds")
    done += [f"{facts(number, 'runs/*/run.toml', 'folds')} folds" for number in sorted(folds)]
    if len(ways := sorted({run.setting.split for run in study.runs})) > 1:
        done.append(f"splits {listed([*map(_way, ways)])}")
    if study.leakage.permuted:
        done.append("training on labels permuted by subject")
    return f"Done: {'; '.join(done)}." if done else Answer(NOT_DONE)


def _internal(study: Study, facts: Facts) -> str:
    run = study.main
    unit, file = "subjects" if run.named else "slices", methods.run_file(run, "predictions.tsv")
    counts = count_classes(run, run.predicted("test"))
    parts = [f"{facts(count, file, f'{unit} of {name} in test')} of {name}"
             for name, count in counts.items()]  # fmt: skip
    way = methods.SPLITS[run.setting.split]
    return f"Test {unit}: {listed(parts)}, of the same cohort, which was split {way}."


def _subjects(study: Study, facts: Facts) -> str | Answer:
    rows = characteristics(study.main, study.participants)
    if missing := [name.lower() for name in unrecorded(rows, study.class_names)]:
        are = "are" if len(missing) > 1 else "is"
        return Answer(AUTHOR, f"Table 1 has counts; {listed(missing)} {are} not on record.")
    return "Table 1 has subjects, sessions, slices, classes, age and sex of each subset."


def _failures(study: Study, facts: Facts) -> str:
    run, file = study.chosen[0].runs[0], methods.run_file(study.chosen[0].runs[0], "metrics.json")
    unit = "subject" if run.named else "slice"
    confusion = (run.metrics.get("test") or {}).get(f"{unit}_confusion")
    if not confusion:
        return ""
    parts = [
        f"{facts(count, file, f'test.{unit}_confusion')} of {true} predicted {predicted}"
        for true, row in zip(run.class_names, confusion, strict=True)
        for predicted, count in zip(run.class_names, row, strict=True)
        if true != predicted and count
    ]
    if not parts:
        return f"{run.name} misclassifies no test {unit}."
    return f"{run.name}, test {unit}s: {listed(parts)}; predictions.tsv names them."


def _availability(study: Study, facts: Facts) -> str:
    text = "headscope is free software under the MIT licence"
    if version := (study.environment.get("packages") or {}).get("headscope"):
        text += f", version {facts(version, 'environment.json', 'packages.headscope')}"
    models = sum(run.keeps_network for run in study.runs)
    number = facts(models, "runs/*/model.safetensors, backbone.safetensors", "files")
    of = facts(len(study.runs), "runs", "finished runs")
    return f"{text}. Weights of {number} of {of} networks are in the record. Data: the author."


def _differences(study: Study, facts: Facts) -> str:
    rows = characteristics(study.main, study.participants)
    parts = [f"{row.name.partition(',')[0].lower()} p = "
             f"{facts(row.p, 'table1.tsv', f'p of {row.name}', 'probability')}"
             for row in rows if not isnan(row.p)]  # fmt: skip
    if not parts:
        return "All subsets are of one cohort; Table 1 has no test of how they differ."
    return f"All subsets are of one cohort; between them {listed(parts)} (Table 1)."


def _imbalance(study: Study, facts: Facts) -> str:
    text = balancing_words(study).strip() or "No class was weighted or drawn more often."
    text += " Balanced accuracies are in the table."
    return f"{text} {larger_class(study, facts)}".strip()


def _prediction(study: Study, facts: Facts) -> str:
    text = "The output is a probability per class and slice; the largest is predicted."
    return f"{text} A subject's is {aggregates(study)}." if study.named else text


def _performance(study: Study, facts: Facts) -> str:
    names = ("subject_accuracy", "subject_auc", "slice_accuracy", "slice_auc")
    text = performance(study, facts, *names)
    return f"{text} {larger_class(study, facts)} The table has all settings.".replace("  ", " ")


def _diagnosis(study: Study, facts: Facts) -> str | Answer:
    if len(study.class_names) > 2 or not study.named:
        return Answer(NOT_DONE, "Sensitivity and specificity need two classes and subject ids.")
    positive = (study.main.metrics.get("test") or {}).get("positive_class") or ""
    text = performance(study, facts, "subject_sensitivity", "subject_specificity")
    return f"{text} Sensitivity is to {positive}." if positive else text


def _external(study: Study, facts: Facts) -> str | Answer:
    cohorts = find_evaluations(study.folder)[0]
    if not cohorts:
        return Answer(NOT_DONE)
    shown = facts.listed([cohort.name for cohort in cohorts], "evaluations", "folders")
    text = f"Networks were tested on cohorts from elsewhere: {shown}; evaluations.tsv has scores."
    shared = [cohort.name for cohort in cohorts if cohort.overlap.heads]
    return f"{text} Heads of {listed(shared)} are in the experiment too." if shared else text


def _clusters(study: Study, facts: Facts) -> str | Answer:
    if any(run.setting.split == "site" for run in study.runs):
        return f"Data were split {methods.SPLITS['site']}; the table has that split."
    if "site" not in study.participants:
        return Answer(NOT_DONE, "Sites are not on record.")
    return Answer(AUTHOR, "Sites are on record, in participants.tsv.")


def _flow(study: Study, facts: Facts) -> str:
    return f"The flow diagram (flow). {methods.PARAGRAPHS['Data'](study, facts)}"


def _explanation(study: Study, facts: Facts) -> str:
    mapped = sum(run.place("maps.npz").is_file() for run in study.runs)
    number = facts(mapped, "runs/*/maps.npz", "files")
    return (
        "Weights of the final layer beside a null model; the share of each position in a decision "
        f"from the last feature maps, recorded for {number} network{'' if mapped == 1 else 's'}."
    )


ANSWERS: Final[dict[str, Callable[[Study, Facts], str | Answer]]] = {
    "technology": _technology,
    "source": _source,
    "eligibility": _eligibility,
    "preprocessing": methods.PARAGRAPHS["Slices"],
    "pseudonyms": _pseudonyms,
    "missing": _missing,
    "labels": _labels,
    "splits": methods.PARAGRAPHS["Splits"],
    "apart": _apart,
    "sample_size": _sample_size,
    "model": _model,
    "software": methods.PARAGRAPHS["Software"],
    "weights": _weights,
    "training": methods.PARAGRAPHS["Training"],
    "selection": _selection,
    "ensembles": lambda study, facts: Answer(NOT_DONE, "Each prediction is of one network."),
    "evaluation": methods.PARAGRAPHS["Evaluation"],
    "robustness": _robustness,
    "explanation": _explanation,
    "internal": _internal,
    "external": _external,
    "flow": _flow,
    "subjects": _subjects,
    "performance": _performance,
    "diagnosis": _diagnosis,
    "failures": _failures,
    "limitations": lambda study, facts: Answer(AUTHOR, " ".join(cautions(study, facts))),
    "availability": _availability,
    "predictors": lambda study, facts: (
        f"The predictors are the pixels of slices. {methods.PARAGRAPHS['Slices'](study, facts)}"
    ).strip(),
    "clusters": _clusters,
    "updating": lambda study, facts: Answer(NOT_DONE, UNCHANGED),
    "prediction": _prediction,
    "imbalance": _imbalance,
    "fairness": lambda study, facts: Answer(NOT_DONE),
    "differences": _differences,
}

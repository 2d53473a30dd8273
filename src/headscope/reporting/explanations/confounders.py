"""Chapter, flags and sentences on covariates: whether age, sex or site explains an accuracy."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from markupsafe import Markup

from headscope.analysis.explanations.confounding import (
    Confounder,
    Confounding,
    confounding,
    probes_table,
    strata_table,
    tests_table,
)
from headscope.analysis.explanations.covariates import read_covariates
from headscope.analysis.results.settings import SettingResult, choose_apart
from headscope.reporting.blocks import Block, Chapter, Fold, TableBlock, Text
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import number, say
from headscope.supplement.prose import listed

LINK: Final = Markup('<a href="#confounders">The tests</a>')
WORDS: Final = {
    "manufacturer": "the manufacturer of the scanner",
    "field_strength": "field strength",
}
MEANING: Final = (
    "A network that predicts the class may read the age, the sex or the scanner of the subjects "
    "where the classes differ in them. Two tests by conditional permutation over the test subjects "
    "tell: <i>Read, given the class</i> asks whether predictions also tell the covariate among "
    "subjects of one class (a small p: they do); <i>Class told, given it</i> asks whether they "
    "tell the class among subjects of one value (a large p: the covariate may explain all of it). "
    "The adjusted AUC is that among subjects of the same value."
)
METHOD: Final = (
    "Berrett et al. 2020; Spisak 2022; Janes and Pepe 2009. Folds are pooled, seeds averaged. p of "
    "<i>Alike</i> and of <i>Read</i> are corrected for the number of covariates (Holm). Covariates "
    "are taken one at a time: two together may explain what neither does alone."
)


def explain_by_confounders(experiment: Path, results: Sequence[SettingResult]) -> Explanation:
    """Return what covariates explain of the settings, those of `participants.tsv`."""
    made = read_confounding(experiment, results)
    return Explanation(
        flags=confounder_flags(made),
        sentences=confounder_sentences(made),
        chapter=confounders_chapter(made),
    )


def read_confounding(experiment: Path, results: Sequence[SettingResult]) -> list[Confounding]:
    """Return what covariates explain of each setting, the one that validation chooses first."""
    covariates, apart = read_covariates(experiment), [r for r in results if r.apart]
    if covariates is None or not apart:
        return []
    best = choose_apart(apart)[0].key
    made = confounding(apart, covariates, deep=[best])
    return sorted(made, key=lambda analysis: analysis.setting != best)


def confounders_chapter(made: Sequence[Confounding]) -> Chapter | None:
    """Show the tests of all settings, and strata and probes of the chosen one; None without."""
    if not any(analysis.confounders or analysis.notes for analysis in made):
        return None
    best = made[0]
    blocks: list[Block] = [
        Text(Markup(MEANING)),  # noqa: S704
        TableBlock("confounders", tests_table(*made)),
    ]
    if best.strata:
        blocks.append(TableBlock("strata", strata_table(best)))
    if best.probes:
        title = "How well the features tell the covariates, within class"
        blocks.append(Fold(title, [TableBlock("covariate-probes", probes_table(best))]))
    blocks.append(Text(Markup(METHOD), style="notes"))  # noqa: S704
    result = "no covariate is flagged"
    if best.flagged:
        result = f"{', '.join(confounder.covariate for confounder in best.flagged)}: see the tests"
    elif not best.confounders:
        result = "nothing could be tested"
    elif not best.better:
        result = "no accuracy above chance to explain"
    return Chapter("confounders", "What else could explain it", blocks, result)


def confounder_flags(made: Sequence[Confounding]) -> list[Markup]:
    """Return what a reader must know of covariates before believing the chosen setting."""
    return [_flag(made[0], confounder) for confounder in made[0].flagged] if made else []


def _flag(result: Confounding, confounder: Confounder) -> Markup:
    covariate, prefix = _word(confounder.covariate), f"confounder.{confounder.covariate}"
    full = number(confounder.full.p, result.setting, f"{prefix}.full_p", "p")
    read = number(confounder.partial_p, result.setting, f"{prefix}.partial_p", "p")
    if confounder.finding == "coincides":
        text = "<b>{} decides the class</b> of the test subjects: nothing tells the two apart. {}"
        return say(text, _capital(covariate), LINK)
    if confounder.finding == "explains":
        text = (
            "<b>{} could explain this accuracy:</b> the classes differ in it, and given it the "
            "predictions are not shown to tell the classes ({}){}. {}"
        )
        also = say("; within a class they tell it ({})", read) if confounder.read else ""
        return say(text, _capital(covariate), full, also, LINK)
    text = (
        "<b>The network {}reads {}</b>, in which the classes differ: within a class, its "
        "predictions tell it ({}). {}"
    )
    return say(text, "also " if result.better else "", covariate, read, LINK)


def confounder_sentences(made: Sequence[Confounding]) -> list[Markup]:
    """Return what covariates explain of the chosen setting, for the verdict."""
    if not made or not made[0].confounders:
        return []
    result = made[0]
    sentences = [_sentence(result, confounder) for confounder in result.flagged]
    clear = [c for c in result.confounders if not c.finding and c.full.p <= 0.05]
    if result.better and clear:
        names = listed([_word(confounder.covariate) for confounder in clear])
        most, several = max(confounder.full.p for confounder in clear), len(clear) > 1
        p = number(
            most, result.setting, "confounder.full_p_most", "probability" if several else "p"
        )
        text = "Given {}{}, the predictions still tell the classes ({}{})."
        ways = (", one at a time", "p at most ") if several else ("", "")
        sentences.append(say(text, names, *ways, p))
    return sentences


def _sentence(result: Confounding, confounder: Confounder) -> Markup:
    p = partial(number, run=result.setting, form="p")
    covariate, prefix = _word(confounder.covariate), f"confounder.{confounder.covariate}"
    if confounder.finding == "coincides":
        text = "{} decides the class of the test subjects, so this accuracy may be that of telling "
        return say(text + "{} alone.", _capital(covariate), covariate)
    differs = p(confounder.label_p, quantity=f"{prefix}.label_p")
    full = p(confounder.full.p, quantity=f"{prefix}.full_p")
    if confounder.finding == "explains":
        text = (
            "{} may explain all of it: the classes differ in {} ({}), and among subjects of the "
            "same {} the predictions are not shown to tell the classes ({})."
        )
        return say(text, _capital(covariate), covariate, differs, confounder.covariate, full)
    read = p(confounder.partial_p, quantity=f"{prefix}.partial_p")
    text = "The network {}reads {} ({} within a class), in which the classes differ ({}){}."
    also = "also " if result.better else ""
    still = say("; given it the predictions still tell the classes ({})", full)
    return say(text, also, covariate, read, differs, still if result.better else "")


def _word(name: str) -> str:
    return WORDS.get(name, name)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]

"""Which floor is named beforehand, case by case as the docs list them, whatever the order of the floors."""

import pytest

from models import MODELS
from utils.scores.named import named, roles

LINEAR = [  # of a bundle
    *("covariates, logistic regression", "phenotype, logistic regression"),
    *("regions, logistic regression", "regions, ridge", "all, logistic regression", "all, ridge"),
]
FITTED = [*LINEAR, *("covariates, SVM", "phenotype, SVM", "regions, SVM", "all, SVM")]
ONE_MAP = [*FITTED, "regions and phenotype, mean of SVMs"]
SEVERAL = [*ONE_MAP, "regions, mean of SVMs"]
CONNECTOMES = [*SEVERAL, "connectome, ridge", "regions with phenotype and connectome, mean of parts"]
NO_PHENOTYPE = [name for name in SEVERAL if "phenotype" not in name]
OF_EDGES = [*NO_PHENOTYPE, "connectome, ridge", "regions and connectome, mean of parts"]
ALL = ("volume", "phenotype", "connectome")
EXACT = ([], [])


@pytest.mark.parametrize(
    "inputs, floors, name, lacks, besides",
    [
        (ALL, CONNECTOMES, "regions with phenotype and connectome, mean of parts", *EXACT),
        (ALL[:2], CONNECTOMES, "regions and phenotype, mean of SVMs", *EXACT),
        (ALL[:2], ONE_MAP, "regions and phenotype, mean of SVMs", *EXACT),
        (ALL[:1], CONNECTOMES, "regions, mean of SVMs", *EXACT),
        (ALL[:1], ONE_MAP, "regions, SVM", *EXACT),
        (ALL[1:2], CONNECTOMES, "phenotype, SVM", *EXACT),
        (ALL[2:], CONNECTOMES, "connectome, ridge", *EXACT),
        (ALL[::2], OF_EDGES, "regions and connectome, mean of parts", *EXACT),
        # what stands in
        (ALL, OF_EDGES, "regions and connectome, mean of parts", ["phenotype"], []),
        (ALL, SEVERAL, "regions and phenotype, mean of SVMs", ["connectome"], []),
        (
            ALL[::2],
            CONNECTOMES,
            "regions with phenotype and connectome, mean of parts",
            [],
            ["phenotype"],
        ),
        (ALL, [*LINEAR, "connectome, ridge"], "all, ridge", ["connectome"], ["covariates"]),
        (ALL[:2], LINEAR, "all, ridge", [], ["covariates"]),
        (ALL[:2], NO_PHENOTYPE, "regions, mean of SVMs", ["phenotype"], []),
        (ALL[:1], LINEAR, "regions, ridge", *EXACT),
        (ALL[1:2], LINEAR, "phenotype, logistic regression", *EXACT),
    ],
)
def test_the_floor_is_the_one_that_reads_what_the_network_reads(inputs, floors, name, lacks, besides):
    for listed in (floors, floors[::-1]):
        found = named(listed, inputs)
        assert found and (found.name, found.lacks, found.besides) == (name, lacks, besides)


def test_without_a_floor_that_reads_an_input_none_is_named():
    assert named([], ALL) is None
    assert named(["covariates, SVM", "of another version"], ALL) is None


CLASSIFIERS = [model for model in MODELS.values() if model.predicts == "label"]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=[model.name for model in CLASSIFIERS])
def test_of_each_classifier_one_floor_is_named_and_what_is_no_floor_has_no_role(model):
    rows = ["model", "majority", *CONNECTOMES, "rule that made the data"]
    found = roles(rows, model.inputs(next(iter(model.module.PRESETS.values()))))
    assert list(found.values()).count("named beforehand") == 1 and list(found) == CONNECTOMES
    assert set(found.values()) == {"named beforehand", "other"}

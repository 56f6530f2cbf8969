"""The items of TRIPOD+AI, and what a test's tables say to each: a text, or a gap for the author.

Collins et al. 2024, BMJ 385:e078378; the published checklist is at https://www.tripod-statement.org. Here each item
is named in a few words of our own. A macro `item_<number>` of `tripod.jinja` holds what the run knows.
"""

import pandas as pd

from utils.report.tables import Tables
from utils.report.texts import TEMPLATES, facts, paragraph

TEMPLATE = "tripod.jinja"
FILLED_BY = RUN, PART, AUTHOR = "the run", "the run, in part", "the author"
GAP = "For the author:"  # in the text of an item that is filled in part
ITEMS = """
1 | title | title | D;E | a model is developed or evaluated: for whom, to predict what
2 | abstract | abstract | D;E | follows the checklist for abstracts
3a | introduction | background | D;E | medical context, diagnostic or prognostic, why this model, earlier models
3b | introduction | background | D;E | for whom, for what step of care, by which users
3c | introduction | background | D;E | known inequalities between social groups
4 | introduction | objectives | D;E | aims; development, evaluation or both
5a | methods | data | D;E | sources of the data, why these, how representative
5b | methods | data | D;E | dates of recruitment and of follow-up
6a | methods | participants | D;E | setting; number and place of the centres
6b | methods | participants | D;E | who was eligible
6c | methods | participants | D;E | treatments, and how they were dealt with
7 | methods | data preparation | D;E | preprocessing and quality checks, alike in all groups or not
8a | methods | outcome | D;E | what is predicted, how and when it was assessed, alike in all groups or not
8b | methods | outcome | D;E | who assessed it, if that takes judgement
8c | methods | outcome | D;E | blinding of that assessment
9a | methods | predictors | D | how the first set of predictors was chosen
9b | methods | predictors | D;E | every predictor defined, how and when it was measured
9c | methods | predictors | D;E | who measured them, if that takes judgement
10 | methods | sample size | D;E | how the number of people came about, and whether it suffices
11 | methods | missing data | D;E | how missing values were dealt with; why data were left out
12a | methods | analysis | D | which data served development and evaluation; how they were divided
12b | methods | analysis | D | form and scale of the predictors
12c | methods | analysis | D | kind of model, steps of building it, tuning, internal validation
12d | methods | analysis | D;E | differences between clusters, such as sites
12e | methods | analysis | D;E | measures and plots of performance; comparison of models
12f | methods | analysis | E | updating of the model, such as recalibration
12g | methods | analysis | E | how predictions were computed
13 | methods | class imbalance | D;E | methods against unequal classes, and recalibration after them
14 | methods | fairness | D;E | what was done for fairness, and why
15 | methods | model output | D | what the model puts out; thresholds and their origin
16 | methods | training, evaluation | D;E | how the evaluation data differ from those of development
17 | methods | ethics | D;E | ethics committee; consent or waiver
18a | open science | funding | D;E | who paid, and the funders' part
18b | open science | conflicts | D;E | interests of all authors
18c | open science | protocol | D;E | where the protocol is, or that there is none
18d | open science | registration | D;E | register and number, or that there is none
18e | open science | data sharing | D;E | where the data can be had
18f | open science | code sharing | D;E | where the code of the analysis can be had
19 | involvement | patients, public | D;E | part of patients and the public in the study, or none
20a | results | participants | D;E | flow of people, with and without the outcome
20b | results | participants | D;E | characteristics, overall and by source; missing data; differences between groups
20c | results | participants | E | evaluation data beside those of development
21 | results | development | D;E | people and outcomes in each analysis
22 | results | specification | D | the whole model, so that others can predict with it; limits of access
23a | results | performance | D;E | performance with intervals, in subgroups too
23b | results | performance | D;E | differences of performance between clusters
24 | results | updating | E | results of updating the model
25 | discussion | interpretation | D;E | what the results mean, fairness included, beside earlier studies
26 | discussion | limitations | D;E | limits of the study and what they do to the results
27a | discussion | usability | D | what to do with inputs that are poor or missing
27b | discussion | usability | D | what users have to do, and what they must know
27c | discussion | usability | D;E | next steps, with a view to where the model holds
"""


def items(tables: Tables) -> pd.DataFrame:
    """A row an item: `item`, `section`, `topic`, `for` (D development, E evaluation), `asks` in our words, `filled_by`,
    and `text`, which is empty where it is left to the author."""
    of, macros = facts(tables), TEMPLATES.get_template(TEMPLATE).module
    listed = [[cell.strip() for cell in line.split("|")] for line in ITEMS.strip().splitlines()]
    table = pd.DataFrame(listed, columns=["item", "section", "topic", "for", "asks"])
    names = "item_" + table["item"]
    texts = [paragraph(name, TEMPLATE, of=of, tables=tables) if hasattr(macros, name) else "" for name in names]
    filled_by = [(PART if GAP in text else RUN) if text else AUTHOR for text in texts]
    return table.assign(filled_by=filled_by, text=texts)

"""Effects of a blackout -> the families of things that it replaced, their tables, and what the page says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from data.base.tables import printable
from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort
from utils.blackout import direction, options, replication, sentences
from utils.blackout.connections import Connections, connections_of, connections_table
from utils.blackout.effects import Adjusted, Beside, Effects
from utils.blackout.families import Family, People
from utils.blackout.fills import RELIANCE
from utils.blackout.replication_words import beside_first, first_sentence
from utils.blackout.results import BlackoutResults, ByMap, Pairs, Regions, Things
from utils.blackout.tables import map_table, region_table, value_table
from utils.blackout.values import groups_of, measured_of_people, names_of, of_groups, without_own
from utils.runs.run import Run
from utils.scores.adjustment import adjustment
from utils.scores.results import Headline


@dataclass(frozen=True, eq=False)
class BesideOthers(Family):
    """Groups of the phenotype's values, each adjusted for all covariates but those that tell the same: `others`."""

    others: Sequence[Adjusted]

    @cached_property
    def beside(self) -> Beside:
        each = [adjusted(self.effect[:, [at]]) for at, adjusted in enumerate(self.others)]
        return Beside(*map(np.hstack, zip(*each, strict=True)))


@dataclass(frozen=True, eq=False)
class Concluded:
    """The families of the effects of a run on `people`; None of what was not replaced."""

    run: Run
    effects: Effects
    people: People

    @cached_property
    def cohort(self) -> Cohort:
        return options.cohort_of(self.run)

    @cached_property
    def atlas(self) -> Atlas:
        return options.of(self.run).regions(self.cohort.grid)

    @cached_property
    def maps(self) -> list[str]:
        """What is also replaced one at a time beside all together: maps, and the edges of connectomes."""
        chosen, cohort = options.of(self.run), self.cohort
        maps = [printable(cohort.maps[at]) for at in chosen.separate_maps(cohort)]
        return [*maps, options.CONNECTOME] if chosen.replaces_edges(cohort) else maps

    def of_subjects(self, name: str) -> np.ndarray:
        return self.effects.of_subjects(self.effects[name])

    @cached_property
    def regions(self) -> Family | None:
        """Its values are known if one map is replaced: several have no direction together."""
        if RELIANCE not in self.effects:
            return None
        replaced = options.of(self.run).replaced_maps(self.cohort)
        means, names = self.of_subjects("region_means"), [self.atlas.names[region] for region in self.atlas.regions]
        means = means[..., replaced]
        value = means[..., 0] if means.shape[2] == 1 else np.full(means.shape[:2], np.nan)
        return Family("regions", names, self.of_subjects(RELIANCE), value, self.people)

    @cached_property
    def by_map(self) -> Family | None:
        """Its values are means over a region; edges that are replaced alone have none."""
        if not (self.regions and self.maps):
            return None
        effect = self.of_subjects("reliance_by_map")
        means = self.of_subjects("region_means")[..., options.of(self.run).separate_maps(self.cohort)]
        value = np.full(effect.shape, np.nan)
        value[..., : means.shape[2]] = means
        things = [f"{region} in {name}" for region in self.regions.things for name in self.maps]
        count = len(effect)
        return Family("maps", things, effect.reshape(count, -1), value.reshape(count, -1), self.people)

    @cached_property
    def connections(self) -> Connections | None:
        if "pair_reliance" not in self.effects:
            return None
        systems = options.of(self.run).systems_of(self.cohort.grid)
        return connections_of(self.cohort, self.atlas, systems, self.effects, self.people)

    @cached_property
    def values(self) -> Family | None:
        if "value_reliance" not in self.effects:
            return None
        metadata, known = self.cohort.metadata, options.covariates_of(self.run.cohort, self.effects.rows)
        groups, label = groups_of(metadata), self.people.label
        measured = measured_of_people(self.cohort, sorted(set(self.effects.subject)))
        others = [Adjusted(adjustment(without_own(known, metadata, group)), label) for group in groups]
        effect, value = self.of_subjects("value_reliance"), of_groups(measured, groups)
        return BesideOthers("values", [*groups], effect, value, self.people, others)

    def __iter__(self) -> Iterator[Family]:
        connections = self.connections.of_systems if self.connections else None
        yield from filter(None, (self.regions, connections, self.values, self.by_map))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The table of each family by its name."""
        found = dict[str, pd.DataFrame]()
        if self.regions:
            found["regions"] = region_table(self.atlas, self.effects, self.regions)
        if self.by_map:
            found["maps"] = map_table(self.atlas, self.maps, self.by_map)
        if self.connections:
            found["connections"] = connections_table(self.connections, direction.columns)
        if self.values:
            groups = groups_of(self.cohort.metadata)
            found["values"] = value_table(groups, names_of(self.cohort.metadata), self.values)
        return found


def replication_of(here: Concluded, repeats: Sequence[Concluded]) -> pd.DataFrame:
    """`replication.csv`: of each family between halves of these people, and between repeats if there are some."""
    found = [replication.halves(family) for family in here]
    if repeats:
        for family, *others in zip(here, *repeats, strict=True):
            found.append(replication.between_repeats(others, family))
    return pd.concat(found, ignore_index=True)


def results_of(here: Concluded, again: pd.DataFrame, judged: Headline) -> BlackoutResults:
    """The results as page and figures take them. `again` is `replication.csv`; `judged` says how well the network
    predicts. Of one at chance nothing is named."""
    tables, adjusted, chosen = here.tables(), here.people.adjusted, options.of(here.run)
    at_chance, accuracy = judged.score.beats_chance is False, sentences.accuracy_sentence(judged)
    regions = by_map = connections = values = None
    few = not (here.people.concludes or at_chance)
    said = [accuracy] if here.regions and not at_chance else [sentences.basis_sentence(adjusted), accuracy]
    said += [derivation.uncleaned] if (derivation := here.cohort.metadata.derivation) else []
    if here.regions:
        regions = Regions(tables["regions"], at_chance, few=few, atlas=here.atlas)
        said += [] if at_chance else [sentences.evidence_sentence(regions.table, adjusted)]
        what = sentences.maps_sentence(here.cohort.maps, chosen.replaced_maps(here.cohort))
        said += [what, sentences.edges_sentence(here.run, here.atlas)]
    if here.by_map:
        text = "" if at_chance else sentences.by_map_sentence(tables["maps"], adjusted)
        by_map = ByMap(tables["maps"], at_chance, text, few, maps=here.maps)
    if here.connections:
        text = " ".join(of(here.connections) for of in (sentences.systems_sentence, sentences.connections_sentence))
        connections = Pairs(tables["connections"], at_chance, text.strip(), few)
    if here.values:
        values = Things(tables["values"], at_chance, sentences.values_sentence(here.values), few)
    first, more = first_sentence(again, here.run.caveats.unknown_site), beside_first(again)
    summary = "\n".join(filter(None, said))
    return BlackoutResults(here.effects, summary, judged, regions, by_map, connections, values, again, first, more)

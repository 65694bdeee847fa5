"""Who trains and who tests, decided by hashes, so that nothing leaks and nothing moves when rows are appended.

A cluster is what may not be torn: rows of one picture, of near duplicates and of one group. Rows join clusters in the
order of the source, and a cluster's split is settled by its oldest row: the split it prescribes, else the first holdout
that it falls under, else a hash of its group or picture. A later row follows its cluster. A row that would tie two
splits together (a near duplicate of a training and of a test picture, say) is dropped and counted. So what becomes of a
row depends on it and on those before it alone, and rows that are appended move and drop no old one.

Rows that come in before old ones are older than these. They move an old row only if they are in its cluster and would
have had another split than it had, and no rule could do better without knowing which rows were there first: two near
duplicates that alone would train and test must end together, whichever of them came later.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from vlm_assets.data.clusters import Clusters
from vlm_assets.data.sources.base import Slots
from vlm_assets.errors import ConfigError

TRAIN, VAL, TEST = "train", "val", "test"
NAIVE_SEEDS = 20


@dataclass(frozen=True)
class Holdout:
    """Values that training never sees: a share of all combinations of `slots` goes to the split test_<name>."""

    name: str
    slots: tuple[str, ...]
    fraction: float

    @property
    def split(self) -> str:
        """Name of the split."""
        return f"{TEST}_{self.name}"


@dataclass(frozen=True)
class SplitPlan:
    """Shares of the splits, in order of the hash, and what is held out before."""

    train_fraction: float = 0.75
    val_fraction: float = 0.10
    test_fraction: float = 0.15
    holdouts: tuple[Holdout, ...] = ()
    seed: int = 0
    val_of_given_train: float = 0.0  # for sources that prescribe train and test but nothing to validate on

    def split_names(self) -> list[str]:
        """All splits that this plan makes, the ordinary ones first."""
        shares = {TRAIN: self.train_fraction, VAL: self.val_fraction, TEST: self.test_fraction}
        return [name for name, share in shares.items() if share > 0] + [holdout.split for holdout in self.holdouts]


@dataclass(frozen=True)
class Candidate:
    """What the split needs to know of one row of the source."""

    image_id: str  # of the picture that the row shows
    _: KW_ONLY
    group: str = ""
    split: str = ""  # prescribed by the source
    slots: tuple[Slots, ...] = ()  # one per caption
    look: int | None = None  # number of what it shows, shared by rows that show the same; None = the row's position
    twins: Sequence[int] = ()  # the looks that are near duplicates of its own


@dataclass
class Assignment:
    """By position: split and cluster of each row, and for dropped rows the splits they would have tied together."""

    split: dict[int, str] = field(default_factory=dict[int, str])
    cluster: dict[int, str] = field(default_factory=dict[int, str])
    dropped: dict[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])


def assign_splits(rows: Sequence[Candidate], plan: SplitPlan) -> Assignment:
    """Give every row a split and a cluster, in order. Raises ConfigError if the shares do not add up to 1."""
    check_plan(plan)
    result = Assignment()
    clusters: Clusters[int] = Clusters()
    group_members: dict[str, int] = {}
    look_members: dict[int, int] = {}
    for position, row in enumerate(rows):
        look = position if row.look is None else row.look
        kin = [look_members[twin] for twin in (look, *row.twins) if twin in look_members]
        if row.group in group_members:
            kin.append(group_members[row.group])
        ties = {result.split[clusters.find(member)] for member in kin}
        claim = given_split(row, ties, plan) or held_out(row.slots, plan)
        splits = ties | ({claim} if claim else set())
        if len(splits) > 1:
            result.dropped[position] = tuple(sorted(splits))
            continue
        result.split[position] = next(iter(splits), "") or hashed_split(row, plan)
        clusters.find(position)
        for member in kin:
            clusters.join(position, member)
        look_members.setdefault(look, position)
        if row.group:
            group_members.setdefault(row.group, position)
    result.cluster = {position: rows[clusters.find(position)].image_id for position in result.split}
    return result


def given_split(row: Candidate, ties: Collection[str], plan: SplitPlan) -> str:
    """The split that the source prescribes, or "". Of its training rows a share validates, whole clusters at a time."""
    if row.split != TRAIN or not plan.val_of_given_train:
        return row.split
    if ties:
        return VAL if VAL in ties else TRAIN
    return VAL if unit_hash(plan.seed, "val of train", row.group or row.image_id) < plan.val_of_given_train else TRAIN


def check_plan(plan: SplitPlan) -> None:
    """Raise ConfigError for shares that do not add up to 1 and for holdouts of one name."""
    shares = (plan.train_fraction, plan.val_fraction, plan.test_fraction)
    if abs(sum(shares) - 1) > 1e-9 or min(shares) < 0 or plan.train_fraction <= 0:
        raise ConfigError(
            f"train, val and test fractions are {', '.join(f'{share:g}' for share in shares)} and add up to "
            f"{sum(shares):g}; they must be 0 or more, with some training, and add up to 1."
        )
    names = [holdout.name for holdout in plan.holdouts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"Two holdouts are called '{repeated[0]}'. Give each holdout a name of its own.")


def held_out(slots: Iterable[Slots], plan: SplitPlan) -> str:
    """Split of the first holdout that any of the captions falls under, or ""."""
    captions = list(slots)
    for holdout in plan.holdouts:
        for values in held_values(captions, holdout):
            if unit_hash(plan.seed, holdout.name, *values) < holdout.fraction:
                return holdout.split
    return ""


def held_values(slots: Iterable[Slots], holdout: Holdout) -> set[tuple[str, ...]]:
    """The combinations of the holdout's slots that the captions declare."""
    return {
        tuple(caption[slot] for slot in holdout.slots)
        for caption in slots
        if all(slot in caption for slot in holdout.slots)
    }


def hashed_split(row: Candidate, plan: SplitPlan) -> str:
    """Split of a cluster that this row founds: by its group if it has one, so that a group's fate hangs on no order."""
    share = unit_hash(plan.seed, "group" if row.group else "image", row.group or row.image_id)
    if share < plan.train_fraction:
        return TRAIN
    return VAL if share < plan.train_fraction + plan.val_fraction or plan.test_fraction == 0 else TEST


def unit_hash(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    text = json.dumps([seed, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def leaks_of_naive_split(clusters: Sequence[str], copies: Sequence[int], plan: SplitPlan) -> dict[str, float]:
    """What a split of single source rows at random, blind to duplicates, would leak: the mean over NAIVE_SEEDS draws.

    `leaked_test_rows` are test rows of whose cluster another row trains; `deviation` is their standard deviation.
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    cluster_of_row = np.repeat([numbers[cluster] for cluster in clusters], copies)
    leaked: list[int] = []
    tests: list[int] = []
    for seed in range(NAIVE_SEEDS):
        share = np.random.default_rng(seed).random(len(cluster_of_row))
        tested = cluster_of_row[share >= 1 - plan.test_fraction]
        trained = np.zeros(len(numbers), dtype=np.bool_)
        trained[cluster_of_row[share < plan.train_fraction]] = True
        leaked.append(int(trained[tested].sum()))
        tests.append(len(tested))
    return {
        "leaked_test_rows": round(float(np.mean(leaked)), 1),
        "deviation": round(float(np.std(leaked)), 1),
        "test_rows": round(float(np.mean(tests)), 1),
        "rows": len(cluster_of_row),
        "seeds": NAIVE_SEEDS,
    }


def split_counts(splits: Iterable[str], plan: SplitPlan) -> Mapping[str, int]:
    """Rows per split, in the plan's order, with the empty ones."""
    names = list(splits)
    return {name: names.count(name) for name in dict.fromkeys([*plan.split_names(), *sorted(set(names))])}

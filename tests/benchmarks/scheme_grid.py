"""How often schemes are recognised: every scheme in every shape, known architectures, transformers, fresh and trained.

A weight's family is right if it is the one it was drawn from, its scale if the name is that of the formula. Draws of
which the element count does not allow a verdict are left out of the rates: fewer than 1,000 elements for normal against
truncated normal (four standard errors of the kurtosis). No time is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tests.benchmarks.report import Table
from tests.support.known_models import KNOWN
from tests.support.recognition import Seen, recognised
from tests.support.scheme_grid import MAKERS, Maker, drawn, weights_of
from tests.support.trained_nets import NETS, train
from tests.support.transformers_models import models as transformers_models

FIRST_SEED = 100
"""Seeds from here on: thresholds were chosen on smaller ones."""
ENOUGH = 1_000
"""Elements from which a family is asked for."""


@dataclass
class Rate:
    """So many right of so many."""

    right: int = 0
    total: int = 0

    def add(self, is_right: bool) -> None:
        self.right += is_right
        self.total += 1

    @property
    def share(self) -> float:
        return self.right / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{self.share:.4f} ({self.right:,} of {self.total:,})"


@dataclass
class Rates:
    family: Rate
    scale: Rate
    fresh: Rate
    models: Rate

    @classmethod
    def none(cls) -> Rates:
        return cls(Rate(), Rate(), Rate(), Rate())

    def row(self) -> tuple[str, ...]:
        return str(self.family), str(self.scale), str(self.fresh), str(self.models)


def judge_grid(makers: Iterable[Maker], seeds: Iterable[int], *, alone: bool = False) -> dict[str, Rates]:
    """Rates by the maker's name; `alone`: every weight in a model of its own, so that no vote helps.

    Alone, formulas that give the same number for a shape cannot be told apart: one of them, with the right one among
    the alternatives, is right.
    """
    found: dict[str, Rates] = {}
    for maker in makers:
        rates = found.setdefault(maker.name, Rates.none())
        for seed in seeds:
            model = drawn(maker, seed)
            parts = [single(name, w) for name, w in weights_of(model)] if alone else [model]
            for part in parts:
                _judge(rates, recognised(part), maker, alone=alone)
    return found


def single(name: str, weight: nn.Parameter) -> nn.Module:
    """A model with this one weight, as a linear layer or convolution of its shape."""
    rows, columns = weight.shape[0], weight.shape[1]
    kinds = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}
    module = kinds[weight.dim()](columns, rows, *([weight.shape[-1]] if weight.dim() > 2 else []), bias=False)
    module.weight = nn.Parameter(weight.detach().clone())
    return nn.ModuleDict({name.replace(".", "_"): module})


def _judge(rates: Rates, seen: Seen, maker: Maker, *, alone: bool) -> None:
    rates.models.add(seen.found.scheme in maker.names)
    for name, key in seen.names.items():
        if key not in seen.found.by_key:
            continue
        scheme = seen.scheme(name)
        if seen.stats[key].moments.count >= ENOUGH:
            rates.family.add(scheme.family is maker.family)
        is_named = scheme.name in maker.names or (alone and bool({*scheme.alternatives} & {*maker.names}))
        rates.scale.add(is_named)
        rates.fresh.add(seen.trained(name) < 0.5)


def judge_known(
    makes: Mapping[str, tuple[Callable[[], nn.Module], Callable[[str], set[str]]]], seeds: int
) -> list[tuple[str, Rate, Rate]]:
    """(title, right names, fresh models) of architectures, over seeds."""
    rows = []
    for title, (make, names_of) in makes.items():
        named, fresh = Rate(), Rate()
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            torch.manual_seed(seed)
            seen = recognised(make())
            fresh.add(not seen.found.is_trained)
            for name, key in seen.names.items():
                if key in seen.found.by_key and (right := names_of(name)):
                    named.add(seen.scheme(name).name in right)
        rows.append((title, named, fresh))
    return rows


def judge_trained(seeds: int, nets: Iterable[str] = tuple(NETS)) -> list[tuple[str, Rate, Rate, Rate]]:
    """(net, fresh models right, trained models right, share of trained matrices that look so) over seeds."""
    rows = []
    for title in nets:
        fresh, trained, matrices = Rate(), Rate(), Rate()
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            before, after, _ = train(NETS[title], seed)
            fresh.add(not recognised(before).found.is_trained)
            found = recognised(after).found
            trained.add(found.is_trained)
            for probability in found.trained.values():
                matrices.add(probability > 0.5)
        rows.append((title, fresh, trained, matrices))
    return rows


def run(*, quick: bool = False) -> list[Table]:
    """The tables for docs/results.md."""
    torch.set_num_threads(1)
    seeds = 2 if quick else 5
    return [_grid_table(seeds), _known_table(seeds), _trained_table(1 if quick else 3)]


def total(rates: Iterable[Rates]) -> Rates:
    """All of them together."""
    whole = Rates.none()
    for one in rates:
        for field in ("family", "scale", "fresh", "models"):
            mine, theirs = getattr(whole, field), getattr(one, field)
            mine.right += theirs.right
            mine.total += theirs.total
    return whole


def _grid_table(seeds: int) -> Table:
    table = Table("Schemes: every scheme in every shape", ("scheme", "family", "scale", "fresh", "model's scheme"))
    weights = len(list(weights_of(drawn(MAKERS[0], 0))))
    table.note = (
        f"{len(MAKERS)} makers × {weights} weights × {seeds} seeds, one model a maker "
        "and seed; the last row has every weight alone, where one of the formulas that give the same number is right."
    )
    together = judge_grid(MAKERS, range(FIRST_SEED, FIRST_SEED + seeds))
    table.rows += [(name, *rates.row()) for name, rates in together.items()]
    table.rows.append(("**all**", *total(together.values()).row()))
    alone = judge_grid(MAKERS, range(FIRST_SEED, FIRST_SEED + seeds), alone=True)
    table.rows.append(("**all, each alone**", *total(alone.values()).row()))
    return table


def _known_table(seeds: int) -> Table:
    table = Table("Schemes: architectures as their authors start them", ("model", "named right", "fresh"))
    makes = {title: (known.make, known.names) for title, known in KNOWN.items()}
    makes |= {title: (known.make, known.names) for title, known in transformers_models().items()}
    rows = judge_known(makes, seeds)
    table.rows += [(title, str(named), str(fresh)) for title, named, fresh in rows]
    right, total = sum(r.right for _, r, _ in rows), sum(r.total for _, r, _ in rows)
    table.rows.append(
        ("**all**", str(Rate(right, total)), str(Rate(sum(f.right for *_, f in rows), sum(f.total for *_, f in rows))))
    )
    return table


def _trained_table(seeds: int) -> Table:
    columns = ("net", "fresh seen as fresh", "trained seen as trained", "trained matrices seen as trained")
    table = Table("Fresh against trained: digits, 300 steps", columns)
    rows = judge_trained(seeds)
    table.rows += [(title, *map(str, rates)) for title, *rates in rows]
    sums = [Rate(sum(r[i].right for r in rows), sum(r[i].total for r in rows)) for i in (1, 2, 3)]
    table.rows.append(("**all**", *map(str, sums)))
    return table

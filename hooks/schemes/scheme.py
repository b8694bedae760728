"""What recognition says: the scheme that a weight was drawn by, and whether it was trained since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Family(StrEnum):
    """The distribution, or the structure, that a weight was drawn from."""

    ZERO = "zero"
    CONSTANT = "constant"
    IDENTITY = "identity"
    """One non-zero in each row or column, all equal (`eye_`, `dirac_`)."""
    NORMAL = "normal"
    UNIFORM = "uniform"
    TRUNCATED_NORMAL = "truncated_normal"
    ORTHOGONAL = "orthogonal"
    TWO_VALUED = "two_valued"
    """One absolute value everywhere: Hadamard matrices, ZerO, random signs."""
    SPARSE = "sparse"
    """Normal draws with a part set to zero (`sparse_`)."""
    TRAINED = "trained"
    """No draw: it shows what training leaves."""
    BROKEN_TRUNCATION = "broken_truncation"
    """A truncated normal with outliers at its bounds."""
    UNKNOWN = "unknown"

    @property
    def is_drawn(self) -> bool:
        """Whether it is a random draw with a scale that a formula may explain."""
        return self in _DRAWN


_DRAWN = frozenset({Family.NORMAL, Family.UNIFORM, Family.TRUNCATED_NORMAL, Family.ORTHOGONAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The scheme of one weight.

    `name` is a stable id (`he_normal`, `xavier_uniform`, `pytorch_default`, `gpt2_residual`; a family's name where no
    formula fits), `formula` is for people (`√(2/fan_in)`), empty where there is none. `std` is measured, `expected_std`
    the formula's; `confidence` from 0 to 1, shared with `alternatives`, the names that fit as well.
    `is_effective_fan` tells that the fan in the formula is the one that signals see, not PyTorch's or a mistaken one;
    `is_compensated` of a truncated normal, that what truncation takes from the std was given back.
    """

    family: Family
    name: str
    formula: str = ""
    std: float = 0.0
    expected_std: float | None = None
    confidence: float = 1.0
    alternatives: tuple[str, ...] = ()
    is_effective_fan: bool = True
    is_compensated: bool | None = None

    def __str__(self) -> str:
        """As people read it: `he_normal: √(2/fan_in)`."""
        return f"{self.name}: {self.formula}" if self.formula else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """Schemes by tensor key, for every weight with two or more axes that has a record.

    `scheme` is the name that most of the model's matrices agree on, None where they do not. `trained` is the
    probability of each matrix to be trained already, `trained_share` the share of the matrices' parameters that
    look trained, `is_trained` the verdict over the model.
    """

    by_key: Mapping[int, Scheme] = field(default_factory=dict)
    scheme: str | None = None
    trained: Mapping[int, float] = field(default_factory=dict)
    trained_share: float = 0.0
    is_trained: bool = False


class Slip(StrEnum):
    """What went wrong in a formula that is right otherwise."""

    FAN_OUT = "fan_out"
    """fan_out in the place of fan_in."""
    NO_KERNEL = "no_kernel"
    """Channels alone, without the positions of the kernel."""
    NO_GROUPS = "no_groups"
    """All channels, where a group sees a part of them (PyTorch's own fan_out of depthwise convolutions)."""
    SWAPPED = "swapped"
    """Inputs and outputs of a transposed weight swapped."""
    STRIDE = "stride"
    """A transposed convolution's kernel without its stride."""
    FUSED = "fused"
    """All outputs of a fused projection, where each part is one matrix."""
    ALL_ELEMENTS = "all_elements"
    """The number of elements in the place of a fan."""
    VARIANCE_AS_STD = "variance_as_std"
    STD_AS_VARIANCE = "std_as_variance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A known formula that explains a weight's std only with a slip in it, where none without one does.

    `name` and `formula` are the right one's, `expected_std` what it gives; `wrong` says for people what was used, and
    `std` was measured. `agreeing` counts the model's weights that the same slip in the same formula explains, and
    `distinct` the different stds that it gives for them with the slip: one alone may be chance.
    """

    slip: Slip
    name: str
    formula: str
    wrong: str
    std: float
    expected_std: float
    agreeing: int = 1
    distinct: int = 1

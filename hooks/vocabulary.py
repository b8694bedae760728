"""The words that every room shares: enumerations and hard limits. Floor 0: imports nothing of the project."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What was measured of a tensor (ARCHITECTURE: Tensor = (module_path, name, kind))."""

    WEIGHT = "weight"
    GRADIENT = "gradient"
    UPDATE = "update"
    ACTIVATION = "activation"
    ACTIVATION_GRADIENT = "activation_gradient"


class Role(StrEnum):
    """What a tensor does in the model. Only describes; never part of an identity."""

    HIDDEN = "hidden"
    INPUT = "input"
    OUTPUT = "output"
    EMBEDDING = "embedding"
    POSITION = "position"
    RESIDUAL_OUTPUT = "residual_output"
    NORM_GAIN = "norm_gain"
    NORM_BIAS = "norm_bias"
    BIAS = "bias"
    RECURRENT = "recurrent"
    OTHER = "other"


class Statistic(StrEnum):
    """Statistics of a tensor that can be asked for by name; see `initscope.hooks.moments` for their formulas."""

    COUNT = "count"
    NAN_COUNT = "nan_count"
    POSINF_COUNT = "posinf_count"
    NEGINF_COUNT = "neginf_count"
    NONFINITE_COUNT = "nonfinite_count"
    ZERO_COUNT = "zero_count"
    ZERO_FRACTION = "zero_fraction"
    MEAN = "mean"
    STD = "std"
    RMS = "rms"
    MIN = "min"
    MAX = "max"
    ABS_MAX = "abs_max"
    SKEWNESS = "skewness"
    KURTOSIS = "kurtosis"
    NORM = "norm"
    SIGNAL_FRACTION = "signal_fraction"
    DEAD_FRACTION = "dead_fraction"
    SATURATED_FRACTION = "saturated_fraction"
    ROW_SIMILARITY = "row_similarity"


class Severity(StrEnum):
    """How bad a finding is. Critical means: the run is expected to fail."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1, 2 for info, warning, critical."""
        return ("info", "warning", "critical").index(self.value)


class Verdict(StrEnum):
    """One word about a run: the worst open finding, infos left out."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class RunStatus(StrEnum):
    """Life of a run. `lost`: no heartbeat for 120 s; reversible."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    LOST = "lost"


class EpisodeState(StrEnum):
    """Life of a finding. `closed`: the run ended while it was open; the alert ends, the finding stays."""

    PENDING = "pending"
    OPEN = "open"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Cause(StrEnum):
    """Why a start is bad."""

    ZERO_SYMMETRIC = "zero_symmetric"
    CONSTANT_SYMMETRIC = "constant_symmetric"
    TOO_LARGE_EXPLODE = "too_large_explode"
    TOO_SMALL_VANISH = "too_small_vanish"
    SATURATED_ACTIVATIONS = "saturated_activations"
    DEAD_RELU = "dead_relu"
    MISSING_RESIDUAL_SCALING = "missing_residual_scaling"
    WRONG_GAIN_FOR_ACTIVATION = "wrong_gain_for_activation"
    WRONG_FAN_MODE = "wrong_fan_mode"
    BAD_BIAS = "bad_bias"
    BAD_EMBEDDING_SCALE = "bad_embedding_scale"
    BAD_OUTPUT_HEAD = "bad_output_head"
    ATTENTION_LOGIT_BLOWUP = "attention_logit_blowup"
    NONFINITE = "nonfinite"
    LR_TOO_HIGH = "lr_too_high"
    FROZEN_OR_DISCONNECTED_LAYER = "frozen_or_disconnected_layer"
    UNSCALED_INPUT = "unscaled_input"
    DUPLICATED_TENSORS = "duplicated_tensors"
    REPLICAS_DIFFER = "replicas_differ"
    MIXED_PROVENANCE = "mixed_provenance"
    TRUNCATION = "truncation"
    NORM_GAIN = "norm_gain"
    STUCK_BRANCH = "stuck_branch"
    STARVED_UPDATE = "starved_update"
    NUMERIC_RANGE = "numeric_range"
    NONE = "none"


MAX_NAME: Final = 128
"""Characters of a run, project, scalar or tag."""
MAX_MODULE_PATH: Final = 512
"""Characters of a module path."""
MAX_TENSOR_NAME: Final = 256
"""Characters of a tensor's name inside its module."""
MAX_RECORDS_PER_BATCH: Final = 10_000
MAX_TENSORS_PER_RUN: Final = 20_000
MAX_TENSORS_PER_BATCH: Final = 20_000
MAX_SCALARS_PER_BATCH: Final = 10_000
MAX_DIGESTS: Final = 512
"""Parameters of a rank whose content at the start is told."""
MAX_STEP: Final = 10**12
MAX_COUNT: Final = 2**62
MAX_TENSOR_KEY: Final = 2**53 - 1
MAX_RANKS: Final = 1_000_000
MAX_RULES: Final = 1_000
"""Rules that a run may name in its thresholds, and in what it switches off."""
MAX_LIMITS_PER_RULE: Final = 64
MAX_BODY_BYTES: Final = 4 * 2**20
"""Compressed bytes of a request body."""
MAX_DECODED_BYTES: Final = 16 * 2**20
"""Bytes of a request body after decompression."""
MAX_CONFIG_BYTES: Final = 64 * 2**10
"""Bytes of a run's config as JSON."""
HEARTBEAT_SECONDS: Final = 5.0
LOST_AFTER_SECONDS: Final = 120.0
STALLED_AFTER_SECONDS: Final = 600.0

from __future__ import annotations

import subprocess
import sys

import pytest

from initscope.hooks import vocabulary as v


def test_severities_are_ranked_by_how_bad_they_are() -> None:
    assert [s.value for s in sorted(v.Severity, key=lambda s: s.rank)] == ["info", "warning", "critical"]


@pytest.mark.parametrize(
    "words", [v.Kind, v.Role, v.Statistic, v.Severity, v.Verdict, v.RunStatus, v.EpisodeState, v.Cause]
)
def test_words_are_lower_snake_case_and_equal_to_their_names(words: type[v.Kind]) -> None:
    assert [word.value for word in words] == [word.name.lower() for word in words]


def test_every_statistic_of_moments_and_channels_can_be_asked_for_by_name() -> None:
    from initscope.hooks.moments import ChannelStats, Moments

    known = {s for s in v.Statistic if hasattr(Moments, s) or hasattr(ChannelStats, s)}
    assert known == set(v.Statistic)


def test_a_tensor_key_survives_every_json_reader() -> None:
    """2**53 - 1 is the last integer that a reader with doubles only keeps."""
    assert v.MAX_TENSOR_KEY == int(float(v.MAX_TENSOR_KEY)) == 2**53 - 1


def test_a_full_batch_fits_into_a_body() -> None:
    """Seven 8-byte and ten 4-byte columns, and room for the descriptions of the tensors."""
    assert v.MAX_RECORDS_PER_BATCH * (7 * 8 + 10 * 4) < v.MAX_DECODED_BYTES / 2


def test_the_vocabulary_imports_nothing_of_the_project() -> None:
    code = "import sys, initscope.hooks.vocabulary; print(*(m for m in sys.modules if m.startswith('initscope.')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(out.split()) == {"initscope.hooks", "initscope.hooks.vocabulary"}

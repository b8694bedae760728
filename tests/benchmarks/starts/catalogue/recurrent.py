"""Recurrent networks: classifiers and language models of characters."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Change, Group
from tests.benchmarks.starts.faults import (
    constant,
    drawn,
    everything,
    freeze,
    recurrent_orthogonal,
    recurrent_times,
    scale,
)
from tests.benchmarks.starts.loops import adam, by_token, sgd
from tests.benchmarks.starts.nets_sequence import CharRnn, Recurrent


def forget_bias(value: float) -> Change:
    """Sets the second quarter of the input biases of an LSTM: its forget gates."""

    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if "bias_ih" in name:
                quarter = len(parameter) // 4
                parameter[quarter : 2 * quarter] = value

    return change


lstm = Group(
    "lstm", "rnn", partial(Recurrent, "LSTM"), data.waves(channels_first=False), F.cross_entropy, adam(1e-2), steps=200
)
_LSTM = (
    lstm.case("default"),
    lstm.case("forget_1", forget_bias(1.0), reference=True),
    lstm.case("orthogonal", recurrent_orthogonal(), harmless=True),
    lstm.case("zero", everything(0.0), cause="zero_symmetric"),
    lstm.case("constant", everything(0.1), cause="constant_symmetric"),
    lstm.case("all_x30", recurrent_times(30), cause="saturated_activations", also="too_large_explode"),
    lstm.case("all_div100", recurrent_times(0.01), cause="too_small_vanish"),
    lstm.case("closed_output", forget_bias(-10.0), cause="bad_bias", harmless=True),
    lstm.case("head_x100", scale("head", 100), cause="bad_output_head", layers="head"),
    lstm.case("lr_high", optimizer=adam(3.0), cause="lr_too_high", also="saturated_activations"),
)
gru = Group(
    "gru_tokens",
    "rnn",
    partial(Recurrent, "GRU", both=True, tokens=10),
    data.counting(),
    F.cross_entropy,
    adam(5e-3),
    steps=200,
)
_GRU = (
    gru.case("default", reference=True),
    gru.case("table_small", drawn("table", 0.02), harmless=True),
    gru.case(
        "table_x100", scale("table", 100), cause="bad_embedding_scale", also="saturated_activations", layers="table"
    ),
    gru.case("table_zero", constant("table", 0.0), cause="zero_symmetric", also="bad_embedding_scale", layers="table"),
    gru.case("frozen", freeze("rnn"), cause="frozen_or_disconnected_layer", layers="rnn", harmless=True),
)
vanilla = Group(
    "rnn_tanh",
    "rnn",
    partial(Recurrent, "RNN", layers=2),
    data.waves(channels_first=False),
    F.cross_entropy,
    adam(3e-3),
    steps=200,
)
_VANILLA = (
    vanilla.case("default", reference=True),
    vanilla.case("orthogonal", recurrent_orthogonal(), reference=True),
    vanilla.case(
        "recurrent_x10",
        recurrent_times(10, "weight_hh"),
        cause="saturated_activations",
        also="too_large_explode",
        layers="rnn",
    ),
    vanilla.case("all_div30", recurrent_times(1 / 30), cause="too_small_vanish", layers="rnn"),
    vanilla.case(
        "bias_x100", recurrent_times(100, "bias"), cause="bad_bias", also="saturated_activations", layers="rnn"
    ),
    vanilla.case("lr_high", optimizer=sgd(30.0), cause="lr_too_high", also="saturated_activations"),
)
chars = Group("char_lstm", "char_rnn", CharRnn, data.text(), by_token, adam(1e-2), steps=200)
_CHARS = (
    chars.case("default", reference=True),
    chars.case("orthogonal", recurrent_orthogonal(), reference=True),
    chars.case("table_gpt", drawn("table", 0.02), harmless=True),
    chars.case(
        "table_x100", scale("table", 100), cause="bad_embedding_scale", also="saturated_activations", layers="table"
    ),
    chars.case("head_n1", drawn("head", 3.0), cause="bad_output_head", layers="head"),
    chars.case("zero", everything(0.0), cause="zero_symmetric"),
    chars.case(
        "table_constant",
        constant("table", 0.1),
        cause="constant_symmetric",
        also="bad_embedding_scale",
        layers="table",
        harmless=True,
    ),
    chars.case("rnn_x100", recurrent_times(100), cause="saturated_activations", also="too_large_explode", layers="rnn"),
)

CASES: tuple[Case, ...] = (*_LSTM, *_GRU, *_VANILLA, *_CHARS)

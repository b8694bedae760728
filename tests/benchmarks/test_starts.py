"""Cases build, train and are watched; a tape that is replayed says what the run said; limits are searched rightly."""

from __future__ import annotations

import json
import math

import pytest
import torch

from initscope.hooks.rules import RULES
from tests.benchmarks.startbench_adapter import make_monitor
from tests.benchmarks.starts import __main__ as command
from tests.benchmarks.starts import labelling, recorder, replaying, search, sources
from tests.benchmarks.starts.catalogue import CASES
from tests.benchmarks.starts.labels import Outcome
from tests.benchmarks.starts.recorder import tape_path, watched
from tests.benchmarks.starts.replaying import Replayer, with_limits
from tests.benchmarks.starts.sources import SEEDS, Labelled
from tests.benchmarks.starts.tape import load, replay, save
from tests.benchmarks.starts.training import take_step

STEPS = 8
BROKEN, HEALTHY = "named_inputs/constant", "loop_skipped/he"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tapes(tmp_path_factory):
    """A folder with recordings of two cases, and what is known of them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tapes")
    for case_id in (BROKEN, HEALTHY):
        for seed in SEEDS:
            run = watched(sources.own(), case_id, seed, STEPS)
            save(tape_path(folder / "own", case_id, seed), run)
    return folder


def labelled(case_id, outcome):
    case = CASES[case_id]
    return Labelled(case_id, "own", case.group.family, outcome, case.cause, case.also, case.layers, 0, 0.0)


def live(case_id, seed):
    """The adapter's verdict over the same steps, with nothing recorded."""
    ready = sources.own().build(case_id, seed)
    monitor = make_monitor(ready.model, ready.optimizer, ready.info)
    for step in range(STEPS):
        monitor.before_step(step)
        loss = ready.step(step, lambda told, step=step: monitor.after_backward(step, told))
        monitor.after_step(step, loss)
    return monitor.verdict()


@pytest.mark.parametrize("case_id", [BROKEN, HEALTHY])
def test_a_replayed_tape_says_what_the_run_said(tapes, case_id):
    run = load(tape_path(tapes / "own", case_id, 0))
    verdict = replay(run.tapes, RULES)
    assert verdict == live(case_id, 0)
    assert verdict["level"] == ("critical" if case_id == BROKEN else "ok")


def test_a_recorded_training_goes_on_to_its_end_and_is_the_same(tapes):
    run = load(tape_path(tapes / "own", HEALTHY, 1))
    training = CASES[HEALTHY].build(1)
    assert run.losses == [take_step(training, step) for step in range(CASES[HEALTHY].group.steps)]
    assert run.trouble == ""


def test_parts_are_recorded_by_themselves():
    run = watched(sources.own(), "gan/he", 0, 2)
    assert [tape.part for tape in run.tapes] == ["generator", "discriminator"]
    assert all(any(m.verb == "told" for m in tape.messages) for tape in run.tapes)


def test_what_is_remembered_changes_no_verdict(tapes):
    cases = [labelled(BROKEN, Outcome.FAILED), labelled(HEALTHY, Outcome.HEALTHY)]
    replayer = Replayer(tapes, cases)
    replayer.remember(cases)
    eager = {"initial-loss": {"warning_share": 1e-6, "info_nats": 0.0, "info_share": 0.0}}
    for overrides in ({}, {"attention-logits": {"warning": 1e-3}}, eager):
        for case in cases:
            fresh = [replay(load(tape_path(tapes / "own", case.id, s)).tapes, with_limits(overrides)) for s in SEEDS]
            assert replayer.verdicts(case, overrides) == fresh
    alarmed = replayer.verdicts(
        cases[1], {"initial-loss": {"warning_share": 1e-6, "info_nats": 0.0, "info_share": 0.0}}
    )
    assert any(v["level"] == "warning" for v in alarmed)  # another limit was another verdict


@pytest.mark.parametrize(
    ("overrides", "sentence"), [({"no-such": {}}, "no rule no-such"), ({"initial-loss": {"x": 1.0}}, "no limit x")]
)
def test_a_limit_that_does_not_exist_is_an_error(overrides, sentence):
    with pytest.raises(KeyError, match=sentence):
        with_limits(overrides)


def test_the_family_that_is_left_out_has_no_say(monkeypatch):
    """One family wants a limit halved, the other doubled: each is judged by what the other wants."""
    wish = {"a": 0.5, "b": 2.0}
    rule, name = next((rule, name) for rule in RULES for name in rule.limits if name in search.NAMES)
    cases = [
        Labelled(f"{family}/{n}", "own", family, Outcome.FAILED, "none", (), (), 0, 0.0)
        for family in wish for n in range(3 if family == "a" else 2)
    ]  # fmt: skip
    caught = {"level": "critical", "step": 1, "warn_step": 1, "causes": [], "layers": []}
    missed = {"level": "ok", "step": None, "causes": [], "layers": []}

    class Pretended:
        def __init__(self, folder, cases):
            pass

        def remember(self, cases):
            pass

        def verdicts(self, case, overrides):
            factor = overrides.get(rule.id, {}).get(name, 0.0) / rule.limits[name]
            return [caught if factor == wish[case.family] else missed] * 3

    monkeypatch.setattr(search, "Replayer", Pretended)
    whole, families = search.leave_one_out(None, cases)
    by_family = {row[0]: row for row in families.rows}
    assert by_family["own: a"][-1] == f"{rule.id}.{name} × 2"
    assert by_family["own: b"][-1] == f"{rule.id}.{name} × 0.5"
    _, as_it_is, in_sample, left_out = whole.rows[0]
    assert (as_it_is[:6], in_sample[:6], left_out[:6]) == ("0 of 5", "3 of 5", "0 of 5")


def test_labels_are_written_from_recorded_losses(tapes, tmp_path, monkeypatch):
    path = tmp_path / "labels.json"
    wrong = labelling.write(path, tapes / "own")
    told = json.loads(path.read_text())["cases"]
    assert told[HEALTHY]["label"] == "HEALTHY"
    assert any("no reference learned" in words for words in wrong)  # of the other group only a broken start is recorded
    monkeypatch.setattr(replaying, "OWN_LABELS", path)
    assert [case.id for case in replaying.cases_of(tapes)] == [HEALTHY]


def test_the_labels_in_the_repository_are_of_cases_that_exist():
    told = json.loads(sources.OWN_LABELS.read_text())["cases"]
    assert set(told) <= set(CASES)
    assert len(told) >= 60
    for case_id, label in told.items():
        assert (label["cause"], label["family"]) == (CASES[case_id].cause, CASES[case_id].group.family), case_id
        assert len(label["seeds"]) == len(SEEDS)


# torch says once a process that it does not check sparse tensors by itself.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("group", sorted({case.group.name for case in CASES.values()}))
def test_a_case_of_every_group_trains_two_steps(group):
    case = next(c for c in CASES.values() if c.group.name == group and c.reference)
    training = case.build(0)
    assert all(math.isfinite(take_step(training, step)) for step in range(2))


def test_the_layers_of_a_fault_are_modules_or_parameters_of_the_model():
    known = {}
    for case_id, case in CASES.items():
        if case.group.name not in known:
            model = case.group.model()
            known[case.group.name] = dict(model.named_modules()) | dict(model.named_parameters())
        assert set(case.layers) <= known[case.group.name].keys(), case_id


def test_a_folder_without_tapes_is_said_in_words(tmp_path, capsys):
    assert command.main(["score", str(tmp_path)]) == 2
    assert "has no tapes of labelled cases" in capsys.readouterr().err
    assert command.main(["record", str(tmp_path), "--source", "dev", "--startbench", str(tmp_path / "no")]) == 2
    assert "is no folder of startbench" in capsys.readouterr().err


def test_what_is_recorded_already_is_left_where_only_missing_ones_are_asked_for(tapes, monkeypatch):
    seen = []
    monkeypatch.setattr(recorder, "_one", lambda job: seen.append(job[1:3]) or "")
    recorder.record(sources.own(), tapes, startbench=None, only="named_inputs/", missing=True)
    assert (BROKEN, 0) not in seen
    assert ("named_inputs/xavier", 0) in seen

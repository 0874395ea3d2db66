"""Audits: sound certificates pass, inflated ones are flagged, and what a variant changes is counted."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from scipy import stats

from bench.checks import audit_run
from bench.checks.attack import Attack
from bench.checks.audit import Attacked, chance_of_violations
from bench.checks.audit_log import Effort, open_attack_log
from bench.checks.audit_run import finding
from bench.config.run import RunConfig
from bench.device.precision import compiled
from bench.errors import ProtocolError, RecordsError, UsageError
from bench.runs.rebuild import Rebuilt
from bench.runs.workbench import Setup, certify_images
from bench.smoothing.certifier import Smoothed
from bench.types import ABSTAIN
from tests.support import oracles, tiny
from tests.support.fake_runs import make_run

ATTACK = Attack()
CONFIG = RunConfig(methods=("rrcm",), sigmas=(0.25,), n0=20, n=200, radii=(0.0, 0.1))


def by_brightness(x_noisy, sigma, keys=None):
    """A half-space that tells the tiny classes apart."""
    margin = x_noisy.flatten(1).mean(1) - 0.47
    return torch.stack([-margin, margin], 1)


def by_batch(x_noisy, sigma, keys=None):
    """A classifier whose answer depends on the batch it is in."""
    return by_brightness(x_noisy - x_noisy.mean() + 0.47, sigma)


class Known(Rebuilt):
    """A rebuilt run whose classifier is given instead of loaded."""

    compiler = staticmethod(lambda classifier, **how: classifier)

    def smoothed(self, method, sigma):
        how, known = self.setup.config.compile, self.known
        return dataclasses.replace(known, classifier=compiled(known.classifier, how, self.compiler))

    def at_precision(self, *given):
        made = super().at_precision(*given)
        object.__setattr__(made, "known", self.known)
        object.__setattr__(made, "compiler", self.compiler)
        return made


def known(folder, classifier, inflate=1.0):
    """Return a rebuilt run of four tiny images certified by the classifier, the radii multiplied."""
    split = tiny.split("test")
    setup = Setup(config=CONFIG, split=split, indices=(0, 1, 2, 3), device=torch.device("cpu"))
    smoothed = Smoothed(classifier=classifier, sigma=0.25, num_classes=2, batch_size=64)
    records = certify_images(setup, "rrcm", smoothed, setup.indices)
    records = [dataclasses.replace(record, radius=record.radius * inflate) for record in records]
    run = make_run(folder, methods=("rrcm",), sigmas=(0.25,), images=4)
    header = dataclasses.replace(run.header, batch_sizes={"rrcm": 64}, radii=CONFIG.radii, n=200)
    rebuilt = Known(run=dataclasses.replace(run, header=header, records=tuple(records)), setup=setup)
    object.__setattr__(rebuilt, "known", smoothed)
    return rebuilt


def scope(rebuilt, **changes):
    values = {"methods": None, "sigmas": None, "images": 4, "command": "bench audit run"}
    return audit_run.scope_of(rebuilt.run, **(values | changes))


def attacks(rebuilt, audited=lambda *progress: None, settings=ATTACK, **changes):
    return audit_run.audit_attacks(rebuilt, scope(rebuilt, **changes), settings, 0, audited)


def attack_lines(folder):
    """Return the attacks by image, without their commands."""
    lines = [json.loads(line) for line in (folder / "audit" / "attack.jsonl").read_text().splitlines()[1:]]
    return sorted(({**line, "command": ""} for line in lines), key=lambda line: line["index"])


def test_sound_certificates_pass_and_every_attack_is_written(tmp_path):
    report = attacks(known(tmp_path, by_brightness))
    assert report.flag is None
    lines = [json.loads(line) for line in (tmp_path / "audit" / "attack.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["effort", *["attack"] * 4]
    lines = lines[1:]
    assert all(0.9 * line["radius"] < line["distance"] < line["radius"] for line in lines)
    assert pd.read_csv(tmp_path / "audit" / "attack.csv")["violations"].tolist() == [0]
    assert "bench audit run" in (tmp_path / "audit" / "attack.md").read_text()


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_stopped_audit_goes_on_to_the_attacks_of_an_uninterrupted_one(tmp_path, is_cut):
    def stop(method, sigma, done, images):
        if done == 2:
            raise KeyboardInterrupt

    attacks(known(tmp_path / "whole", by_brightness))
    rebuilt, path = (
        known(tmp_path / "stopped", by_brightness),
        tmp_path / "stopped" / "audit" / "attack.jsonl",
    )
    with pytest.raises(KeyboardInterrupt):
        attacks(rebuilt, stop)
    assert len(attack_lines(tmp_path / "stopped")) == 2
    if is_cut:
        path.write_bytes(path.read_bytes()[:-9])
    seen = []
    attacks(rebuilt, lambda method, sigma, done, images: seen.append(done), command="bench audit run again")
    assert seen == ([1, 2, 3, 4] if is_cut else [2, 3, 4])
    assert attack_lines(tmp_path / "stopped") == attack_lines(tmp_path / "whole")
    text = (tmp_path / "stopped" / "audit" / "attack.md").read_text()
    assert "Made by: bench audit run\n" in text
    assert "Made by: bench audit run again\n" in text


def test_an_audit_of_more_images_adds_them_to_the_table(tmp_path):
    rebuilt = known(tmp_path, by_brightness)
    for images in (3, 4, 1):
        attacks(rebuilt, images=images)
    assert pd.read_csv(tmp_path / "audit" / "attack.csv")["images"].tolist() == [4]
    assert len(attack_lines(tmp_path)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoints": {"rrcm/0.25": "other"}},
        {"config": {"options": {"rrcm": {"layernorm": True}}}},
        {"seed": 1},
        {"precision": "bfloat16"},
    ],
)
def test_an_attack_on_another_classifier_or_protocol_does_not_count(tmp_path, changes):
    rebuilt = known(tmp_path, by_brightness)
    attacks(rebuilt, command="bench audit before")
    header = dataclasses.replace(rebuilt.run.header, **changes)
    other = Known(run=dataclasses.replace(rebuilt.run, header=header), setup=rebuilt.setup)
    object.__setattr__(other, "known", rebuilt.known)
    attacks(other)
    assert len(attack_lines(tmp_path)) == 8
    assert "before" not in (tmp_path / "audit" / "attack.md").read_text()


def test_an_attack_on_another_radius_does_not_count(tmp_path):
    attacks(known(tmp_path, by_brightness, inflate=8))
    assert attacks(known(tmp_path, by_brightness)).flag is None
    assert len(attack_lines(tmp_path)) == 8


def test_a_file_of_another_version_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "attack.jsonl").write_text('{"method":"rrcm"}\n')
    with pytest.raises(
        RecordsError, match=r"line 1 cannot be read .*unknown field `method`.*delete it and start anew"
    ):
        attacks(known(tmp_path, by_brightness))


def test_attacks_of_another_effort_are_not_mixed(tmp_path):
    attacks(known(tmp_path, by_brightness))
    with pytest.raises(
        ProtocolError, match=r"under another steps \(then and now: 10 and 20\): delete the file to attack"
    ):
        attacks(known(tmp_path, by_brightness), settings=Attack(steps=20))


def test_inflated_radii_are_flagged_with_their_images(tmp_path):
    report = attacks(known(tmp_path, by_brightness, inflate=8))
    assert "is flagged: more certificates are contradicted than chance allows" in report.flag
    assert "rrcm at sigma 0.25: images 0, 1, 2, 3" in report.flag
    assert bool(pd.read_csv(tmp_path / "audit" / "attack.csv")["is_flagged"][0])


@pytest.mark.parametrize("predicts", [(1, 1, 1), (0, 1, ABSTAIN), (0, 0, 0)])
def test_chance_is_the_binomial_tail_of_the_violations(predicts):
    values = {"method": "rrcm", "sigma": 0.5, "index": 0, "certified": 1, "radius": 0.5, "distance": 0.4}
    attacked = [Attacked(**values, predict=predict, has_gradients=True) for predict in predicts]
    expected = oracles.binomial_at_least(predicts.count(0), 6, 0.001)
    assert chance_of_violations(attacked, 0.001, 3) == pytest.approx(expected, rel=1e-9)


def test_batch_size_changes_nothing_for_a_classifier_of_single_samples(tmp_path):
    rebuilt = known(tmp_path, by_brightness)
    audit_run.audit_batch_sizes(rebuilt, scope(rebuilt), "64,7", lambda *progress: None)
    frame = pd.read_csv(tmp_path / "audit" / "batch_size.csv")
    assert frame["variant"].tolist() == [64, 7]
    assert frame[["differing", "images_changed", "largest", "mean", "verdicts"]].to_numpy().max() == 0
    assert frame["predictions"].tolist() == [4 * 220] * 2


def test_what_the_batch_changes_is_counted(tmp_path):
    rebuilt = known(tmp_path, by_batch)
    audit_run.audit_batch_sizes(rebuilt, scope(rebuilt), "64,3", lambda *progress: None)
    changed = pd.read_csv(tmp_path / "audit" / "batch_size.csv").iloc[1]
    assert changed["differing"] > 0
    assert changed["images_changed"] == 4


def test_precisions_that_the_device_lacks_are_named(tmp_path):
    def refuses(classifier, **how):
        raise RuntimeError("no compiler")

    rebuilt = known(tmp_path, by_brightness)
    object.__setattr__(rebuilt, "compiler", refuses)
    audit_run.audit_precision(rebuilt, scope(rebuilt), lambda *progress: None)
    text = (tmp_path / "audit" / "precision.md").read_text().replace("\\", "")
    assert "Unavailable: tf32 of rrcm, TF32 exists on CUDA only, this device is cpu." in text
    assert "Unavailable: compiled of rrcm, torch.compile fails here (RuntimeError: no compiler)." in text
    assert pd.read_csv(tmp_path / "audit" / "precision.csv")["variant"].tolist() == ["float32", "bfloat16"]


def test_a_compiled_run_is_audited_without_compiling_but_for_that_variant(tmp_path):
    rebuilt = known(tmp_path, by_brightness)
    setup = dataclasses.replace(
        rebuilt.setup, config=dataclasses.replace(CONFIG, compile="default", precision="bfloat16")
    )
    whole = Rebuilt(run=rebuilt.run, setup=setup)
    configs = [whole.at_precision("float32", *how).setup.config for how in ((), ("default",))]
    assert [(one.compile, one.precision) for one in configs] == [("none", "float32"), ("default", "float32")]


def test_a_compiled_classifier_that_is_equal_changes_nothing(tmp_path):
    rebuilt = known(tmp_path, by_brightness)
    audit_run.audit_precision(rebuilt, scope(rebuilt), lambda *progress: None)
    frame = pd.read_csv(tmp_path / "audit" / "precision.csv")
    assert frame.loc[frame["variant"] == "compiled", "differing"].tolist() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "rcm"}, "holds no method 'rcm'; did you mean 'rrcm'"),
        ({"sigmas": "0.5"}, "holds no sigma '0.5'"),
    ],
)
def test_a_scope_outside_the_run_is_refused(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        scope(known(tmp_path, by_brightness), **change)


@pytest.mark.parametrize("sizes", ["64", "64,0", "64,x"])
def test_wrong_batch_sizes_are_refused(tmp_path, sizes):
    rebuilt = known(tmp_path, by_brightness)
    with pytest.raises(UsageError, match="expected two or more such as 128,256"):
        audit_run.audit_batch_sizes(rebuilt, scope(rebuilt), sizes, lambda *progress: None)


def test_nothing_certified_is_refused(tmp_path):
    rebuilt = known(tmp_path, by_brightness, inflate=0)
    with pytest.raises(UsageError, match="holds no suitable certificate"):
        attacks(rebuilt)


def test_a_log_that_another_audit_writes_is_waited_for_and_not_deleted(tmp_path):
    rebuilt = known(tmp_path, by_brightness)
    attacks(rebuilt)
    held = open_attack_log(tmp_path / "audit" / "attack.jsonl", Effort(**dataclasses.asdict(ATTACK), seed=0))
    with held, pytest.raises(RecordsError, match=r"another process .*: wait for it, or stop it$"):
        attacks(rebuilt)


def test_a_certificate_that_abstained_had_its_chance_to_be_wrong_too():
    """Certified are few of many: as many wrong ones as alpha allows of all flag nothing."""
    attacked = [_one(index, 1 if index < 24 else 0) for index in range(34)]
    assert chance_of_violations(attacked, 0.05, 34) < 1e-12
    chance = chance_of_violations(attacked, 0.05, made=500)
    assert chance == pytest.approx(stats.binom.sf(23, 534, 0.05), rel=1e-9)
    assert not finding(attacked, 0.05, made=500, together=1).is_flagged


def test_the_rows_of_an_audit_share_its_rate_of_false_alarms():
    attacked = [_one(index, int(index < 3)) for index in range(40)]
    alone = finding(attacked, 0.0002, made=40, together=1)
    assert 1e-7 < alone.chance < 1e-6
    assert alone.is_flagged
    assert not finding(attacked, 0.0002, made=40, together=21).is_flagged


def _one(index, predict):
    return Attacked(
        method="a",
        sigma=0.5,
        index=index,
        certified=0,
        radius=0.5,
        distance=0.4,
        predict=predict,
        has_gradients=True,
    )

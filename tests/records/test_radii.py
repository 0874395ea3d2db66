"""What a command changes in the header of a run that it extends: radii, and all that no certificate rests on."""

import dataclasses

import pytest

from bench.config.radii import chosen_radii
from bench.errors import ProtocolError
from bench.records.file import RecordsFile, read_run
from bench.types import UNSEEN
from tests.records.test_file import ALL, COST, HEADER, UNSURE, record, write


def test_radii_that_nobody_named_give_way_to_those_of_a_run_and_grow_with_its_sigmas(tmp_path):
    def header(sigma, radii=None):
        made = dataclasses.replace(HEADER, sigmas=(sigma,), n=1000)
        return dataclasses.replace(made, radii=radii or chosen_radii(made, (sigma,)))

    def radii_of(name, first, *then):
        for one in (first, *then):
            with RecordsFile.create_or_resume(tmp_path / name, one) as file:
                if one is first:
                    file.append(record(sigma=first.sigmas[0], n=1000, **UNSURE))
                held = file.run.header.radii
        return held

    chosen = chosen_radii(header(0.25), (0.25, 1.0))
    assert radii_of("up", header(0.25), header(1.0)) == radii_of("down", header(1.0), header(0.25)) == chosen
    assert radii_of("named", header(1.0, (0.0, 0.7)), header(1.0), header(0.25)) == (0.0, 0.7)
    assert radii_of("again", header(1.0), header(1.0, (0.0, 0.7))) == (0.0, 0.7)


def header_of(methods, sigmas, dds="then"):
    """Return a header of methods whose files, weights and options hold a text, "then" or, of dds, another."""
    texts = {"rrcm/0.5": "then", "dds/0.5": dds, "dds/0.5/denoiser": dds}
    of_each = {key: text for key, text in texts.items() if key.startswith(methods)}
    options = {name: {"option": {"rrcm": "then", "dds": dds}[name]} for name in methods}
    return dataclasses.replace(
        HEADER,
        methods=methods,
        sigmas=sigmas,
        checkpoints=of_each,
        weights=of_each,
        config={"options": options},
        batch_sizes=dict.fromkeys(methods, 64),
    )


@pytest.mark.parametrize("item", [record(), COST])
def test_a_method_and_a_sigma_without_certificate_and_cost_leave_no_trace_in_the_header(tmp_path, item):
    write(tmp_path, item, header=header_of(("rrcm", "dds"), (0.25, 0.5)))
    write(tmp_path, header=dataclasses.replace(header_of(("rrcm",), (0.5,)), command="again"))
    header = read_run(tmp_path).header
    assert (header.methods, header.sigmas, header.command) == (("rrcm",), (0.5,), "again")
    assert header.checkpoints == header.weights == {"rrcm/0.5": "then"}
    assert (header.options, header.batch_sizes) == ({"rrcm": {"option": "then"}}, {"rrcm": 64})


@pytest.mark.parametrize("field", ["checkpoints", "weights", "config"])
def test_what_a_method_is_made_of_may_change_until_its_first_certificate(tmp_path, field):
    first, other = (header_of(("rrcm", "dds"), (0.5,), text) for text in ("then", "now"))
    mended = dataclasses.replace(first, **{field: getattr(other, field)})
    write(tmp_path, record(), header=first)
    write(tmp_path, record(method="dds"), header=mended)
    assert getattr(read_run(tmp_path).header, field) == getattr(other, field) | (
        {"methods": ["rrcm", "dds"], "sigmas": [0.5]} if field == "config" else {}
    )
    with pytest.raises(ProtocolError, match=r"dds.*now.*then"):
        write(tmp_path, header=first)


def test_a_checkpoint_trained_again_to_the_same_weights_is_no_other_one(tmp_path):
    key = f"{HEADER.methods[0]}/{HEADER.sigmas[0]:g}"
    header = dataclasses.replace(HEADER, checkpoints={key: "first"}, weights={key: 64 * "a"})
    write(tmp_path, record(method=HEADER.methods[0], sigma=HEADER.sigmas[0]), header=header)
    again = dataclasses.replace(header, checkpoints={key: "second"})
    write(tmp_path, header=again)
    assert read_run(tmp_path).header.checkpoints == {key: "second"}
    for weights in (64 * "b", UNSEEN):
        other = dataclasses.replace(again, weights={key: weights}, checkpoints={key: "third"})
        with pytest.raises(ProtocolError, match="another the checkpoint of"):
            write(tmp_path, header=other)


def test_costs_that_are_asked_for_later_are_those_that_a_run_lacks(tmp_path):
    header = dataclasses.replace(HEADER, config={"cost_repetitions": 0})
    write(tmp_path, *ALL, header=header)
    write(tmp_path, header=dataclasses.replace(header, config={"cost_repetitions": 2}))
    assert read_run(tmp_path).header.config["cost_repetitions"] == 2


def test_a_command_that_finishes_the_run_is_kept_only_where_it_can_be_typed(tmp_path):
    def header(name, command, sigma=0.5, **options):
        made = dataclasses.replace(HEADER, methods=(name,), sigmas=(sigma,), command=command)
        return dataclasses.replace(made, config={"options": options})

    def command_after(folder, first, second):
        write(tmp_path / folder, record(method="rrcm", sigma=first.sigmas[0], **UNSURE), header=first)
        write(tmp_path / folder, header=second)
        return read_run(tmp_path / folder).header.command

    plain = header("rrcm", "bench run --methods rrcm")
    then = header("dds", "bench run --methods dds", 0.25)
    assert command_after("plain", plain, then) == f"{then.command} --methods dds,rrcm --sigmas 0.25,0.5"
    assert command_after("python", plain, header("dds", "bench.run('dds')")) == "bench.run('dds')"
    given = header("rrcm", "bench run --methods rrcm", rrcm={"votes": 1})
    assert command_after("options", given, then) == then.command
    odd = dataclasses.replace(plain, sigmas=(0.123456789,))
    assert command_after("digits", odd, then).endswith("--sigmas 0.123456789,0.25")

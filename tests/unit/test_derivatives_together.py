"""Many files in one run of a program: what goes together, and that a bad file harms itself alone."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.derivatives import FAILED, Order
from ingestd.derivatives.batches import FEWEST, MOST_BYTES, batches
from ingestd.errors import Code
from ingestd.fpr.records import Command, Purpose, ScriptType, Usage
from ingestd.handlers.access import normalize_for_access
from ingestd.handlers.normalization import normalize
from ingestd.oais import DIP, File, FileUse, Warning_
from ingestd.premis import EventType
from tests.normalizing import bench, command, need, puid_of, receive, rule
from tests.steps import Bench, a_file, inside

EACH = """
[ $# -gt 0 ] || set -- %inputFile% %OUT%.txt
echo $(( $# / 2 )) >> $TMPDIR/../runs
while [ $# -gt 0 ]; do
    case $(cat "$1") in
    crash) kill -SEGV $$ ;;
    hang) sleep 60 ;;
    nothing) [ $# -gt 2 ] || echo 'nothing in it' >&2 ;;
    empty) : > "$2" ;;
    *) cat "$1" > "$2" ;;
    esac
    shift 2
done
"""
"""Copies each file; what is in a file is how it goes wrong. `runs` has a line for each run: how many files it had."""
SITE = command("each", EACH, together=32) + rule("each") + rule("each", "access")


def runs_of(made: Bench) -> list[int]:
    return [int(line) for line in (made.services.pool.home() / "runs").read_text().split()]


async def run(made: Bench) -> None:
    await made.run(normalize, files=await made.files(uses=(FileUse.ORIGINAL,)))


async def warned(made: Bench) -> dict[str, Warning_]:
    return {warning.path: warning async for window in made.journal.warnings() for warning in window}


async def copied(made: Bench) -> Mapping[str, bytes]:
    """Give the copies by the paths of their originals."""
    names = {file.id: file.path for file in await made.files(uses=(FileUse.ORIGINAL,))}
    copies = await made.files(uses=(FileUse.PRESERVATION,))
    return {names[copy.derived_from or copy.id]: (made.root / copy.path).read_bytes() for copy in copies}


@pytest.mark.tool
class TestManyFiles:
    async def test_are_made_by_one_run_for_each_processor_and_each_has_its_own_event(self, tmp_path: Path) -> None:
        async with bench(tmp_path, SITE, tools={"processes": 2}) as made:
            contents = {f"objects/{number}.txt": str(number).encode() for number in range(20)}
            await receive(made, contents)

            await run(made)

            assert [10, 10] == runs_of(made)
            assert contents == await copied(made)
            scratch = inside(made.folder / "scratch" / "derivatives")
            assert {"receipts"} == {PurePosixPath(path).parts[0] for path in scratch}
            for copy in await made.files(uses=(FileUse.PRESERVATION,)):
                assert copy.derived_from is not None
                (event,) = (await made.journal.events([copy.derived_from]))[copy.derived_from]
                assert EventType.NORMALIZATION is event.type
                assert f"%SIPDirectory%{copy.path}" == event.note
                assert 'program="Shell"; version="' in event.detail

    async def test_of_the_same_name_are_never_in_one_run(self, tmp_path: Path) -> None:
        async with bench(tmp_path, SITE, tools={"processes": 1}) as made:
            contents = {
                f"objects/{folder}/a.{suffix}": folder.encode() for folder in "xyz" for suffix in ("txt", "doc")
            }
            await receive(made, contents)

            await run(made)

            assert [1] * 6 == runs_of(made)
            assert contents == await copied(made)

    async def test_hear_of_no_variable_that_is_of_one_of_them(self, tmp_path: Path) -> None:
        script = """
        [ $# -gt 0 ] || set -- %inputFile% %OUT%.txt
        while [ $# -gt 0 ]; do echo "%fileName%|%fileUUID%|%SIPName%|%toolName%" > "$2"; shift 2; done
        """
        async with bench(tmp_path, command("hear", script, together=8) + rule("hear")) as made:
            await receive(made, {"objects/a.txt": b"x", "objects/b.txt": b"y"})

            await run(made)

            assert {b"||letters|Shell\n"} == {*(await copied(made)).values()}

    async def test_are_made_together_for_a_dip_and_a_default_stands_in_for_the_bad_one(self, tmp_path: Path) -> None:
        async with bench(tmp_path, SITE, tools={"processes": 1}) as made:
            await receive(made, {"objects/a.txt": b"x", "objects/b.txt": b"empty", "objects/c.txt": b"y"})

            await made.run(normalize_for_access, files=await made.files(uses=(FileUse.ORIGINAL,)))

            copies = {copy.path.rpartition("-")[2]: copy for copy in await made.files(under=DIP)}
            assert [3, 1] == runs_of(made)
            assert {"a.txt": b"x", "b.txt": b"empty", "c.txt": b"y"} == {
                name: (made.root / copy.path).read_bytes() for name, copy in copies.items()
            }
            assert ["objects/b.txt"] == [*await warned(made)]


@pytest.mark.tool
class TestABadFile:
    @pytest.mark.parametrize(
        ("bad", "code", "detail", "runs"),
        [
            # By halves: 9, 5, 3, 2, 1, and with each what went without it.
            ("crash", FAILED, "Shell was killed by signal 11", [9, 5, 3, 2, 1, 1, 1, 2, 4]),
            ("nothing", FAILED, "nothing in it", [9, 1]),
            ("empty", FAILED, "Shell wrote an empty file", [9, 1]),
            ("hang", Code.TOOL_TIMEOUT, "Shell took longer than it may", [9, *[1] * 9]),
        ],
    )
    async def test_harms_itself_alone_and_says_for_itself_what_was_wrong(
        self, tmp_path: Path, bad: str, code: str, detail: str, runs: Sequence[int]
    ) -> None:
        budget = {"seconds": 2.0 if bad == "hang" else 60.0}
        async with bench(tmp_path, SITE, tools={"processes": 1}, normalization=budget) as made:
            good = {f"objects/{number}.txt": str(number).encode() for number in range(8)}
            await receive(made, {"objects/.bad.txt": bad.encode(), **good})

            await run(made)

            assert good == await copied(made)
            assert runs == runs_of(made)
            (warning,) = (await warned(made)).values()
            assert ("objects/.bad.txt", code) == (warning.path, warning.code)
            assert detail in warning.detail

    async def test_leaves_nothing_of_a_run_that_it_broke_off(self, tmp_path: Path) -> None:
        cut_short = """
        [ $# -gt 2 ] || { cat "${1:-%inputFile%}" > "${2:-%OUT%.txt}"; exit; }
        while [ $# -gt 0 ]; do printf cut > "$2"; shift 2; done
        exit 1
        """
        async with bench(tmp_path, command("cut", cut_short, together=8) + rule("cut")) as made:
            contents = {f"objects/{number}.txt": b"whole" for number in range(3)}
            await receive(made, contents)

            await run(made)

            assert contents == await copied(made)

    async def test_that_is_over_budget_is_so_by_its_own_size(self, tmp_path: Path) -> None:
        grow = """
        [ $# -gt 0 ] || set -- %inputFile% %OUT%.txt
        while [ $# -gt 0 ]; do head -c 5000 /dev/zero > "$2"; shift 2; done
        """
        budget = {"max_ratio": 10, "ratio_from_bytes": 100}
        async with bench(tmp_path, command("grow", grow, together=8) + rule("grow"), normalization=budget) as made:
            await receive(made, {"objects/a.txt": b"0123456789", "objects/b.txt": b"0" * 1000})

            await run(made)

            assert ["objects/a.txt"] == [*await warned(made)]
            assert ["objects/b.txt"] == [*await copied(made)]


@pytest.mark.tool
async def test_what_a_crash_left_made_is_not_made_again_with_the_rest(tmp_path: Path) -> None:
    async with bench(tmp_path, SITE, tools={"processes": 1}) as made:
        await receive(made, {f"objects/{number}.txt": b"x" for number in range(3)})
        files = await made.files()
        lost = [file async for one in made.outcomes(normalize, files=files) for file in one.facts.files]
        (made.root / lost[0].path).unlink()
        (made.root / lost[1].path).unlink()

        await run(made)

        assert [3, 2] == runs_of(made)
        assert sorted(file.id for file in lost) == sorted(
            copy.id for copy in await made.files(uses=(FileUse.PRESERVATION,))
        )


@pytest.mark.tool
@pytest.mark.timeout(300)
async def test_libreoffice_makes_many_documents_in_one_run_whatever_their_names(tmp_path: Path) -> None:
    async with bench(tmp_path, tools={"processes": 1}) as made:
        need(made.services, "soffice")
        names = ["a%20b.txt", "a b.txt", ".hidden", "x.", "x;y.txt", "a.b.txt", 'it\'s "#1".txt']
        await receive(made, {f"objects/{name}": f"the words of {name}".encode() for name in names})
        await receive(made, {"objects/broken.odt": b"PK\x03\x04" + bytes(100)}, "fmt/1756")
        before = made.services.pool.spawned

        await run(made)

        # One of all and one of the broken one; each verification; once the event's words, and three programs' versions.
        assert 2 + len(names) + 1 + 3 >= made.services.pool.spawned - before
        assert ["objects/broken.odt"] == [*await warned(made)]
        copies = await copied(made)
        assert {f"objects/{name}" for name in names} == {*copies}
        (tmp_path / "pdf").mkdir()
        for number, (path, pdf) in enumerate(copies.items()):
            place = tmp_path / "pdf" / f"{number}.pdf"
            place.write_bytes(pdf)
            assert "fmt/477" == puid_of(place), path
            text = await made.services.pool.run(["pdftotext", place, "-"])
            assert f"the words of {path.removeprefix('objects/')}" in text.check().stdout.decode()


def a_command(name: str, together: int) -> Command:
    return Command(
        id=name,
        tool="shell",
        usage=Usage.NORMALIZATION,
        description=name,
        script_type=ScriptType.BASH_SCRIPT,
        script="cp $1 $2",
        output_location="%outputDirectory%x",
        together=together,
    )


def an_order(name: str, size_bytes: int, by: Command) -> Order:
    file = replace(a_file(f"objects/{uuid.uuid4()}/{name}"), size_bytes=size_bytes)
    return Order(file=file, path=Path("/t", file.path), purpose=Purpose.PRESERVATION, command=by, folder=Path("/t"))


def allowed(file: File) -> int:
    return max(2**20, 2 * file.size_bytes)


ORDERS = st.lists(
    st.builds(
        an_order,
        st.sampled_from(["a.txt", "a.doc", "b.txt", ".c", "d.", "d.txt", "e", "f.g.h"]),
        st.sampled_from([0, 1, MOST_BYTES // 3, MOST_BYTES, MOST_BYTES + 1]),
        st.sampled_from([a_command("one", 1), a_command("four", 4), a_command("many", 32)]),
    ),
    max_size=64,
)


@given(ORDERS, st.integers(1, 40))
def test_each_order_is_in_one_batch_that_fits(orders: Sequence[Order], at_once: int) -> None:
    made = batches(orders, resolve=lambda command: command, allowed_bytes=allowed, at_once=at_once)

    assert [*range(len(orders))] == sorted(number for batch in made for number in batch)
    for batch in made:
        some = [orders[number] for number in batch]
        names = [order.path.name.rpartition(".")[0] or order.path.name for order in some]
        assert 1 == len({(order.command.id, allowed(order.file)) for order in some})
        assert len(batch) <= some[0].command.together
        assert len(names) == len({*names})
        assert len(batch) == 1 or sum(order.file.size_bytes for order in some) <= MOST_BYTES


def test_batches_keep_the_processors_busy_but_not_with_starting() -> None:
    orders = [an_order(f"{number}.txt", 1, a_command("many", 32)) for number in range(64)]

    made = [batches(orders, resolve=lambda c: c, allowed_bytes=allowed, at_once=at_once) for at_once in (1, 4, 64)]

    assert [[32, 32], [16] * 4, [FEWEST] * 8] == [[len(batch) for batch in some] for some in made]


@pytest.mark.parametrize(
    "more", [{"script_type": ScriptType.COMMAND}, {"output_location": ""}, {"script": "rm -r %outputDirectory%"}]
)
def test_a_command_that_cannot_be_told_pairs_takes_one_file(more: Mapping[str, object]) -> None:
    with pytest.raises(ValueError, match=r"together is for a (?:bashScript|script that reads)"):
        Command.model_validate({**a_command("x", 1).model_dump(), "together": 2, **more})

"""Kill every command at random moments, flip bits in every file, restart every server; look whether all comes right.

    python benchmarks/faults.py [--seed 1] [--kills 20] [--flips 5] [--only NAME ...] [--state FOLDER]

Three tables: kills, restarts and bits; NAME is a command to kill, `restarts` or `bits`.

A kill: the command starts from the same state each time, SIGKILL comes at a moment drawn evenly between its start and
the time that an uninterrupted run took, and then the command is run again to its end. What is there must be what the
uninterrupted run left: the same bits of every output, in MLflow the same runs, metrics, aliases and moves, in Optuna's
database the same trials. A kill that came after the end, when the command's last line was printed, is drawn again.
After a killed `rollback` it depends: where its move is recorded there is nothing to do; where it was begun, `frostline
promote` of the older version finishes it and changes nothing more; else `rollback` is run again. `sweep` runs in a
folder without dvc.yaml, so that `dvc repro` does not take most of its time.

A restart: the server is killed while the command works, and is back seconds later. A bit: one bit, drawn evenly over a
file's bits, is flipped in a copy of the project, and the command that reads the file is run. It is detected where the
command says so in a line and refuses, or computes the same result all the same; harmless where nothing is said and the
result is the same; wrong otherwise.

What is done is kept in FOLDER, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults_bits
import faults_content
import faults_project
import faults_restarts
from faults_project import HEAVY, LIGHT, PARAMS, Command, Place
from table import show

Result = dict[str, Any]

TRIES = 20  # draws for one kill before the command is taken to end too soon


@dataclass(frozen=True)
class Case:
    """A command to kill.

    start: the kept state that it begins from; again: what to run after a kill, if not the same; look: what writes down
    of its result that which can be compared.
    """

    name: str
    start: str
    command: Command
    modules: Sequence[str] = HEAVY
    again: Callable[[Place], Command | None] | None = None
    look: Callable[[], None] | None = None


def after_rollback(place: Place) -> Command | None:
    """What to run after a killed rollback."""
    done, begun = faults_content.moves(place.project)
    if begun:
        return ["promote", "1"]
    return None if any(move["kind"] == "rollback" for move in done) else ["rollback", "-m", "worse"]


CASES = (
    Case("prepare", "source", ["prepare"], LIGHT),
    Case("augment", "prepared", ["augment"], LIGHT),
    Case("first connection to MLflow", "new", faults_project.connect),
    Case("finetune", "augmented", ["finetune"]),
    Case("evaluate", "trained", ["evaluate"]),
    Case("export", "evaluated", ["export", "exported"], look=faults_project.ask_export),
    Case("register", "committed", ["register"]),
    Case("promote", "challenged", ["promote"]),
    Case("rollback", "promoted", ["rollback", "-m", "worse"], again=after_rollback),
    Case("sweep", "searchable", ["sweep"]),
)

# How a kept state is made from another one.
STEPS: dict[str, tuple[str, Callable[[Place], Any]]] = {
    "source": ("new", lambda place: place.run(faults_project.connect)),
    "prepared": ("source", lambda place: place.run(["prepare"])),
    "augmented": ("prepared", lambda place: place.run(["augment"])),
    "trained": ("augmented", lambda place: place.run(["finetune"])),
    "evaluated": ("trained", lambda place: place.run(["evaluate"])),
    "committed": ("evaluated", faults_project.commit),
    "challenged": ("committed", lambda place: challenge(place)),
    "promoted": ("challenged", lambda place: place.run(["promote"])),
    "half trained": ("augmented", lambda place: cut_short(place, ["finetune"], "head   1/")),
    "half searched": ("searchable", lambda place: cut_short(place, ["sweep"], " paused after ")),
    "searchable": ("augmented", lambda place: searchable(place)),
}


def challenge(place: Place) -> None:
    """Make the first version the champion and a second one, trained otherwise, the challenger."""
    place.run(["register"])
    place.run(["promote"])
    faults_project.change(place.project, {"finetune": {"learning_rate": 1e-5, "epochs": 1}})
    place.run(["finetune"])
    place.run(["evaluate"])
    faults_project.commit(place)
    place.run(["register"])


def searchable(place: Place) -> None:
    """Leave DVC out, and let trials be long enough to be paused."""
    (place.project / "dvc.yaml").unlink()
    faults_project.change(place.project, {"finetune": {"epochs": 4, "batch_size": 4}, "sweep": {"trials": 5}})


def cut_short(place: Place, command: Command, words: str) -> None:
    """Kill a command once it has printed those words."""
    process = place.start(command)
    faults_restarts.wait_for(place, words, [process])
    if not process.kill():
        raise SystemExit(f"{command}: ended before it could be killed")


def ensure(place: Place, name: str) -> None:
    """Make a kept state where it is missing, and those before it."""
    if place.template(name).is_dir():
        return
    before, step = STEPS[name]
    ensure(place, before)
    print(f"making the state {name!r}", flush=True)
    place.use(before)
    step(place)
    place.keep(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=5)
    names = [*(case.name for case in CASES), "restarts", "bits"]
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "frostline-faults")
    chosen = parser.parse_args()
    place = opened(chosen.state.resolve())
    cases = [case for case in CASES if case.name in chosen.only]
    if results := [kill_often(place, case, chosen.seed, chosen.kills) for case in cases]:
        tell_kills(results, chosen.seed)
    faults_project.warm([*LIGHT, *HEAVY])
    if "restarts" in chosen.only:
        tell_restarts(place)
    if "bits" in chosen.only:
        tell_bits(place, chosen.seed, chosen.flips)


def opened(state: Path) -> Place:
    """The folders of this measurement, as they are where it goes on."""
    place, clone = Place(state), state / "clone"
    if not clone.is_dir():
        faults_project.clone(clone)
    commit = faults_project.head(clone)
    if commit != faults_project.head(faults_project.ROOT):
        print(f"going on with commit {commit[:10]}; remove {state} to measure the present one", flush=True)
    faults_project.use_package(clone)
    if not place.template("new").is_dir():
        shutil.rmtree(place.project, ignore_errors=True)
        shutil.copytree(clone, place.project, symlinks=True)
        faults_project.draw(place.project / PARAMS["data"]["source"])
        faults_project.change(place.project, PARAMS)
        place.keep("new")
    return place


def kill_often(place: Place, case: Case, seed: int, kills: int) -> Result:
    """Kill a command so many times, going on after the kills that are done already."""
    file = place.state / "results" / f"{case.name.replace(' ', '-')}-{seed}.json"
    ensure(place, case.start)
    faults_project.warm(case.modules)
    if file.exists():
        result: Result = json.loads(file.read_text())
    else:
        result = {"name": case.name, **uninterrupted(place, case), "attempts": []}
    while len(result["attempts"]) < kills:
        result["attempts"].append(attempt(place, case, result, seed))
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result, indent=1))
    return result


def uninterrupted(place: Place, case: Case) -> Result:
    """How long the command takes, what it leaves, and the names of all files then."""
    place.use(case.start)
    began = time.monotonic()
    _, printed = place.run(case.command)
    seconds = time.monotonic() - began
    if case.look:
        place.run(case.look)
    left = faults_content.leftovers(place.project, place.temporary, faults_content.names(place.project))
    print(f"{case.name}: {seconds:.1f} s without a kill{'; leaves ' + ', '.join(left) if left else ''}", flush=True)
    content, names = faults_content.of(place.project), sorted(faults_content.names(place.project))
    return {"seconds": seconds, "content": content, "names": names, "left": left, "end": _last_line(printed)}


def attempt(place: Place, case: Case, known: Result, seed: int) -> Result:
    """One kill, and what came after it."""
    drawn = random.Random(f"{seed} {case.name} {len(known['attempts'])}")
    for _ in range(TRIES):
        place.use(case.start)
        moment = drawn.uniform(0, known["seconds"])
        process = place.start(case.command)
        is_killed = process.wait(moment) is None and process.kill()
        if is_killed and (not known["end"] or _last_line(place.log.read_text(errors="replace")) != known["end"]):
            break
    else:
        raise SystemExit(f"{case.name}: ended {TRIES} times before it could be killed")
    command = case.again(place) if case.again else case.command
    status, printed = place.run(command, ok=False) if command else (0, "")
    orphans = [f"process {words}" for words in process.orphans()]
    if case.look:
        place.run(case.look, ok=False)
    differ = faults_content.differences(faults_content.of(place.project), known["content"])
    left = faults_content.leftovers(place.project, place.temporary, known["names"])
    left = [name for name in left if name not in known["left"]] + orphans
    same = status == 0 and not differ
    print(f"{case.name}: killed after {moment:.2f} s: {'same' if same else 'NOT the same'}", *left, flush=True)
    if not same:
        print(f"  exit status {status}; differs: {', '.join(differ)}\n  {printed[-1500:]}", flush=True)
    return {"moment": moment, "same": same, "status": status, "differ": differ, "left": left, "said": printed[-500:]}


def _last_line(printed: str) -> str:
    return printed.strip().rpartition("\n")[2]


def tell_kills(results: Sequence[Result], seed: int) -> None:
    """Print and keep the table of kills."""
    rows = []
    for result in results:
        attempts = result["attempts"]
        left = [re.sub(r"\d+", "N", name) for each in attempts for name in each["left"]]
        numbers = (len(attempts), sum(each["same"] for each in attempts), len(left))
        said = ", ".join(f"`{name}`" for name in sorted(set(left)))
        rows.append((result["name"], f"{result['seconds']:.1f} s", *map(str, numbers), said))
    show(
        "faults",
        f"Kills at random moments before a command's end (seed {seed}), then the same command again.",
        ("command", "without a kill", "kills", "ended as uninterrupted", "leftovers", "which"),
        rows,
    )


def tell_restarts(place: Place) -> None:
    """Measure, print and keep the table of restarts."""
    for name in ("augmented", "searchable"):
        ensure(place, name)
    rows = [
        kept(place, f"restart-{number}", lambda number=number: faults_restarts.row(place, number))
        for number in range(len(faults_restarts.CASES))
    ]
    show(
        "faults_restarts",
        "Servers that are killed while a command needs them, and are back seconds later.",
        ("server", "command", "outcome"),
        rows,
    )


def tell_bits(place: Place, seed: int, flips: int) -> None:
    """Measure, print and keep the table of flipped bits."""
    rows = []
    for number, kind in enumerate(faults_bits.KINDS):
        ensure(place, kind.start)
        name = f"bits-{number}-{seed}-{flips}"
        rows.append(kept(place, name, lambda kind=kind: faults_bits.row(place, kind, seed, flips)))
    show(
        "faults_bits",
        f"One flipped bit a copy of a project (seed {seed}), then the command that reads the file.",
        ("file", "flips", "detected", "harmless", "wrong", "what was wrong"),
        rows,
    )


def kept(place: Place, name: str, measure: Callable[[], Sequence[str]]) -> Sequence[str]:
    """A row of a table, measured where that has not been done yet."""
    file = place.state / "results" / f"{name}.json"
    if not file.exists():
        row = measure()
        print(" | ".join(row), flush=True)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(row))
    row = json.loads(file.read_text())
    return [str(cell) for cell in row]


if __name__ == "__main__":
    main()

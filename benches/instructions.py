"""Count what the engine's work takes, in instructions, which neither noise nor other processes touch.

    python benches/instructions.py             compare with benches/instructions.json; fail if a count differs by 3 %
    python benches/instructions.py --accept    write what is needed now to that file

Valgrind's callgrind runs `rust/engine/benches/instructions.rs` on one thread. It shows programs a processor of its own,
with AVX2 and without AVX-512, so the counts are the same on every x86-64 machine that has AVX2. They change with the
compiler and the dependencies, which are pinned. The file is committed: a change that makes the engine need more, or
less, says so by other counts.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BASELINE = Path(__file__).with_suffix(".json")
ALLOWED = 0.03
COUNTED = "instructions::counted"


def main():
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--accept", action="store_true", help="write the counts to the file instead of comparing")
    arguments = parser.parse_args()
    if not is_comparable():
        print("instructions are not counted: the counts to compare with are those of x86-64 with AVX2")
        return 0
    if not shutil.which("valgrind"):
        sys.exit("there is no valgrind here; it is a package of that name")
    now = counts(executable())
    before = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    print(table(before, now))
    if arguments.accept:
        BASELINE.write_text(json.dumps(now, indent=4) + "\n")
        return 0
    changed = [name for name in {**before, **now} if not is_near(before.get(name), now.get(name))]
    if changed:
        print(f"\n{BASELINE.name} is out of date: {'; '.join(changed)}")
        print("If that is meant: python benches/instructions.py --accept, and commit the file.")
    return int(bool(changed))


def is_near(before, now):
    """Say whether a count is there and about what it was; what has become faster must not become slower unnoticed."""
    return None not in {before, now} and abs(now / before - 1) <= ALLOWED


def is_comparable():
    """Say whether callgrind shows programs on this machine the processor that it shows them everywhere."""
    return platform.machine() == "x86_64" and re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text())


def executable():
    """Build the bench and return its path."""
    command = ["cargo", "bench", "--locked", "--workspace", "--bench", "instructions", "--no-run"]
    built = subprocess.run([*command, "--message-format=json"], stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, built.stdout.splitlines())
    return next(
        message["executable"]
        for message in messages
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "instructions"
    )


def counts(program):
    """Return the instructions of each piece of work, by name."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--toggle-collect={COUNTED}", f"--dump-after={COUNTED}", "--callgrind-out-file=counts"]
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", *options, program],
            cwd=folder,
            env={**os.environ, "RUST_BACKTRACE": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            sys.exit(run.stderr)
        names = run.stdout.splitlines()
        files = [Path(folder) / f"counts.{part}" for part in range(1, len(names) + 1)]
        return {name: total(file) for name, file in zip(names, files, strict=True)}


def total(file):
    """Return the number of instructions in a file of callgrind's."""
    return int(re.search(r"^(?:totals|summary): (\d+)", file.read_text(), re.MULTILINE)[1])


def table(before, now):
    """Return the counts side by side, in Markdown."""
    rows = ["| work | before | now | ratio |", "|---|---:|---:|---:|"]
    for name in {**before, **now}:
        ratio = f"{now[name] / before[name]:.3f}" if name in before and name in now else ""
        rows.append(f"| {name} | {number(before.get(name))} | {number(now.get(name))} | {ratio} |")
    return "\n".join(rows)


def number(count):
    """Return thousands of instructions."""
    return "" if count is None else f"{count // 1000:,} k"


if __name__ == "__main__":
    sys.exit(main())

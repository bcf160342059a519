"""Everything to know about vidlat on a GPU, part by part, in under 7 minutes; docs/how-to/gpu.md tells more.

    python benchmarks/gpu.py [--out gpu_results] [--parts correctness,network] [--fresh]
                             [--device cuda|cuda:N|cpu] [--quick]

Parts, the most important first: correctness, network, encode, training, sampling, trace. Each runs in a
process of its own and within its own time limit, so that one that dies or hangs loses only what it had still
to measure. The folder --out holds results.json, log.txt (what the parts printed) and the traces; a second
call measures only the parts that are not done there, with --fresh all that it is asked for. --quick: tiny
networks and shapes, to see that it runs; such figures mean nothing. Exits with 1 if a part did not get to its
end or found a wrong result, and with 130 after Ctrl-C.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

PARTS = {"correctness": 105, "network": 75, "encode": 85, "training": 90, "sampling": 30, "trace": 30}
"""Time limits in seconds, for an H100-class GPU."""

QUICK_LIMIT = 300
"""Of each part with --quick, in seconds: the machines that it runs on may be busy."""

DONE = "done"
SAID = 1500
"""Characters kept of what a part printed last, where it did not get to its end."""

DEVICE_QUESTION = """
import sys
from vidlat.encode.device import resolve_device
from vidlat.errors import VidlatError
try:
    resolve_device(sys.argv[1])
except VidlatError as error:
    sys.exit(str(error))
"""

Row = dict[str, Any]


def main() -> None:
    options = parse_options()
    results = Path(options.out / "results.json")
    found = earlier_results(results, options)
    left = [name for name in options.parts if found["parts"].get(name, {}).get("state") != DONE]
    if left:
        require_device(options.device)
        options.out.mkdir(parents=True, exist_ok=True)
    for name in left:
        limit = QUICK_LIMIT if options.quick else PARTS[name]
        print(f"measuring {name}, {limit} s at most ...", flush=True)
        found["parts"][name] = run_part(name, part_command(name, options), limit, options.out / "log.txt")
        replace_text(results, json.dumps(found, indent=1) + "\n")
    for name in options.parts:
        print_part(name, found["parts"][name])
    if not all(is_right(found["parts"][name]) for name in options.parts):
        sys.exit(1)


def earlier_results(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What is in the file and need not be measured again; exits where it was measured with other settings."""
    asked = {"device": options.device, "quick": options.quick}
    try:
        found = json.loads(path.read_text()) if path.exists() else asked | {"parts": {}}
    except ValueError as error:
        sys.exit(f"{path}: is damaged ({error}); remove it, or give another --out")
    if asked != {name: found[name] for name in asked}:
        sys.exit(f"{path}: measured with other settings than {asked}; give another --out")
    if options.fresh:
        for name in options.parts:
            found["parts"].pop(name, None)
    return found


def require_device(device: str) -> None:
    """Exit with one line where the device does not exist, or vidlat cannot be imported."""
    command = [sys.executable, "-c", DEVICE_QUESTION, device]
    answer = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit((answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1])


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a full disk loses nothing that was measured before."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_results"))
    parser.add_argument("--parts", type=parse_parts, default=list(PARTS))
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def parse_parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - PARTS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    return names


def part_command(name: str, options: argparse.Namespace) -> list[str]:
    """The command of a part's process; it takes the file for its rows as its last argument."""
    quick = ["--quick"] if options.quick else []
    return [
        sys.executable, "-m", "gpu_parts", name, "--device", options.device, "--out", str(options.out), *quick
    ]  # fmt: skip


def run_part(name: str, command: list[str], limit_seconds: float, log: Path) -> dict[str, Any]:
    """Run a part's process; what it had written when it died, hung or ended is kept."""
    rows = log.with_name(f"{name}.rows")
    rows.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("a") as output:
        print(f"--- {name}", file=output, flush=True)
        process = subprocess.Popen(
            [*command, str(rows)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
        try:
            code = process.wait(limit_seconds)
            state = DONE if code == 0 else f"ended with exit code {code}"
        except subprocess.TimeoutExpired:
            state = f"stopped after {limit_seconds} s"
        finally:
            with suppress(ProcessLookupError):  # what it has started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    machine, *measured = read_rows(rows) or [{}]
    rows.unlink(missing_ok=True)
    part = {"state": state, "seconds": time.monotonic() - began, "machine": machine, "rows": measured}
    said = log.read_text(errors="replace").rpartition(f"--- {name}\n")[2]
    return part if state == DONE else part | {"said last": said[-SAID:]}


def environment() -> dict[str, str]:
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def read_rows(path: Path) -> list[Row]:
    """The whole lines of a file; a process that is killed may leave half of one."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def is_right(part: dict[str, Any]) -> bool:
    return part["state"] == DONE and all(row.get("right", True) for row in part["rows"])


def print_part(name: str, part: dict[str, Any]) -> None:
    print(f"\n{name}: {part['state']}, {part['seconds']:.0f} s")
    if "said last" in part:
        print(part["said last"].rstrip())
    print("; ".join(f"{title} {value}" for title, value in part["machine"].items()))
    columns = list(dict.fromkeys(column for row in part["rows"] for column in row))
    print_table([columns, *([shown(row.get(column)) for column in columns] for row in part["rows"])])


def print_table(lines: Iterable[list[str]]) -> None:
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended too
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; the same command measures what is left", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        sys.exit(f"{error}; make room, or give another --out")

"""One part of benchmarks/gpu.py: writes lines of JSON, one about the machine, then each row once measured."""

import argparse
import json
from importlib import import_module
from itertools import chain
from pathlib import Path

from gpu_parts.measuring import Setting, describe_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("rows", type=Path)
    options = parser.parse_args()
    setting = Setting(device=options.device, quick=options.quick, out=options.out)
    measure = import_module(f"gpu_parts.{options.part}").measure
    with options.rows.open("w") as file:
        for row in chain([describe_machine(setting)], measure(setting)):
            print(json.dumps(row), file=file, flush=True)


if __name__ == "__main__":
    main()

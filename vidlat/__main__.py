"""What `vidlat` and `python -m vidlat` start, also under torchrun and `accelerate launch -m`."""

import sys

from vidlat.resources import limit_threads


def main() -> None:
    """The command line; Ctrl-C while Python still imports it ends like any other."""
    try:
        limit_threads()
        from vidlat.cli import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()

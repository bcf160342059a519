"""The command line: parse, call the library, print. Heavy libraries load inside the commands."""

from vidlat.cli.main import main as main

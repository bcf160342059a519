"""Imports point down, and each heavy library has its rooms."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

from vidlat.cli import commands

PACKAGE = Path(__file__).parents[1] / "vidlat"

LEVELS = [
    {"types", "errors", "prefetch", "files", "interrupts", "slurm", "spelling", "wording"},
    {"resources"},
    {"documents", "hub_errors", "paths", "timing", "checked_settings", "setting_texts", "where"},
    {"config"},
    {"encode", "store", "video", "metrics"},
    {"labels"},
    {"pipeline", "train"},
    {"copies"},
    {"sample"},
    {"evaluate"},
    {"fit"},
    {"export", "report"},
    {"commands"},
    {"cli"},
    {"__main__"},
]

FENCES = {
    "click": {"cli", "commands"},
    "rich": {"commands"},
    "dask": {"pipeline/dask_cluster.py"},
    "distributed": {"pipeline/dask_cluster.py", "pipeline/dask_executor.py", "pipeline/dask_worker.py"},
    "zarr": {"store"},
    "numcodecs": {"store"},
    "tensorstore": {"store"},
    "pyarrow": {"store"},
    "torch": {"encode", "train", "pipeline", "copies", "evaluate", "fit", "sample"},
    "monai": {"encode", "fit/adversary.py", "train/networks/monai_unet.py"},
    "accelerate": {"train/ranks.py", "train/trackers.py"},
    "tensorboard": {"train/event_files.py"},
    "av": {"video"},
    "pydicom": {"video"},
    "nibabel": {"video"},
    "PIL": {"video"},
    "jinja2": {"export", "report"},
    "markupsafe": {"report"},
    "huggingface_hub": {
        "encode",
        "export/card.py",
        "export/cache_card.py",
        "hub_errors.py",
        "store/storage/hub.py",
    },
    "diffusers": {"encode/diffusers_folder.py"},
    "obstore": {"store/storage/objects.py", "store/storage/object_errors.py"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def level_of(room):
    return next((level for level, rooms in enumerate(LEVELS) if room in rooms), None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here == "__init__":
        return
    assert level_of(here) is not None, f"{here} has no level"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "vidlat" or len(parts) == 1 or parts[1] == here:
            continue
        assert level_of(parts[1]) < level_of(here), f"{here} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_rooms(path):
    relative = path.relative_to(PACKAGE)
    for name in imports(path):
        allowed = FENCES.get(name.split(".")[0])
        if allowed is not None:
            assert {relative.as_posix(), relative.parts[0]} & allowed, f"{relative} must not import {name}"


def test_every_imported_library_is_a_dependency():
    """A user's machine lacks what only the tests depend on."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    # Imported only where a user names such a VAE, or the address of such a store.
    texts = [*project["dependencies"], *optional["diffusers"], *optional["remote"]]
    asked = {re.match(r"[\w-]+", text).group().lower().replace("_", "-") for text in texts}
    homes = packages_distributions()
    modules = {name.split(".")[0] for path in FILES for name in imports(path)}
    for module in modules - set(sys.stdlib_module_names) - {"vidlat"}:
        assert {home.lower().replace("_", "-") for home in homes[module]} & asked, module


def test_import_that_points_up_is_caught(tmp_path):
    upward = tmp_path / "upward.py"
    upward.write_text("def f():\n    from vidlat.pipeline.driver import run_encode\n")
    assert list(imports(upward)) == ["vidlat.pipeline.driver"]
    assert level_of("pipeline") > level_of("store")


@pytest.mark.parametrize(
    "module", ["vidlat.cli", "vidlat.store.reader", "vidlat.store.storage.opening", "vidlat.config"]
)
def test_heavy_libraries_load_only_when_used(module):
    heavy = ["torch", "monai", "tensorstore", "zarr", "distributed", "av", "pydicom"]
    heavy += ["huggingface_hub", "diffusers", "obstore"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_help_of_every_command_loads_nothing_heavy():
    heavy = ["torch", "monai", "distributed", "av", "pydicom", "tensorstore", "pyarrow", "vidlat.store"]
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom vidlat.cli import commands\n"
        "names = [[], *([name] for name in commands.commands), ['weights', 'fetch']]\n"
        "for name in names:\n"
        "    answer = CliRunner().invoke(commands, [*name, '--help'])\n"
        "    assert answer.exit_code == 0 and 'vidlat' in answer.output, name\n"
        "    assert not name or 'Example' in answer.output, name\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def declared_commands(group):
    for command in group.commands.values():
        yield from declared_commands(command) if isinstance(command, click.Group) else [command]


@pytest.mark.parametrize("command", [*declared_commands(commands)], ids=lambda command: command.name)
def test_every_command_has_a_body_that_takes_its_parameters(command):
    given = {parameter.name for parameter in command.params if parameter.expose_value}
    if command.config:
        fields = {field.name for field in dataclasses.fields(command.config)}
        given = given - fields - {"in_file"} | {"settings"}
    assert set(inspect.signature(command.import_body()).parameters) == given


ACCESS = {
    *(
        "open",
        "read_bytes",
        "read_text",
        "write_bytes",
        "write_text",
        "exists",
        "is_dir",
        "is_file",
        "is_symlink",
    ),
    *("stat", "lstat", "iterdir", "glob", "rglob", "walk", "mkdir", "rmdir", "touch", "rename", "unlink"),
    *("hardlink_to", "symlink_to", "readlink", "OSFile", "memory_map", "LocalFileSystem"),
}
"""Methods of Path and classes of pyarrow that touch a disk."""

MAY_ACCESS = {"filesystem.py", "process.py", "sources.py"}
"""Of the store: its storage, /proc, and the files that videos are encoded from."""

STORE = [path for path in FILES if path.is_relative_to(PACKAGE / "store") and path.name not in MAY_ACCESS]


def accesses(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ACCESS:
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in ("filesystem", "storage", "ts"):
                yield node.attr
        elif isinstance(node, ast.Name) and node.id == "open":
            yield node.id


@pytest.mark.parametrize("path", STORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_store_touches_storage_in_one_module(path):
    forbidden = {"os", "fcntl", "shutil", "tempfile", "io", "glob"}
    assert not forbidden & {name.split(".")[0] for name in imports(path)}
    assert not list(accesses(ast.parse(path.read_text())))


def test_access_to_storage_is_caught():
    code = "with open(p): pass\np.read_bytes()\nfilesystem.exists(p)\nts.open(spec)\n"
    assert sorted(accesses(ast.parse(code))) == ["open", "read_bytes"]

"""Everything public is imported from `vidlat` itself, and costs nothing until it is used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import vidlat

SOURCE = Path(vidlat.__file__)
HEAVY = ("torch", "numpy", "monai", "distributed", "av", "pydicom", "tensorstore", "pyarrow", "click", "yaml")


def imports_for_type_checkers():
    """Each imported name with its module, as mypy and editors see them."""
    block = next(node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    return {alias.asname: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("name", vidlat.__all__)
def test_public_name_is_what_type_checkers_are_told(name):
    module = import_module(imports_for_type_checkers()[name])
    assert getattr(vidlat, name) is getattr(module, name)


def test_type_checkers_are_told_every_public_name_and_no_other():
    assert sorted(imports_for_type_checkers()) == sorted(vidlat.__all__)
    assert set(vidlat.__all__) <= set(dir(vidlat))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vidlat' has no attribute 'encode_video'"):
        vidlat.encode_video  # noqa: B018


def test_import_of_the_package_loads_nothing_heavy():
    code = f"import sys, vidlat; print([name for name in {HEAVY} if name in sys.modules], len(dir(vidlat)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("[] ")


def test_package_itself_imports_names_from_where_they_are_defined():
    """Imports by way of the package's own front would get round the order of its rooms."""
    for path in SOURCE.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "vidlat":
                assert [alias.name for alias in node.names] == ["__version__"], path

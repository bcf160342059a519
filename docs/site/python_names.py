"""Hook of MkDocs: the reference of all public names of the package, from their docstrings."""

from itertools import groupby

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import vidlat

INTRODUCTION = """# Python

Each name is imported from `vidlat` itself, such as `from vidlat import open_cache`. They are listed by the
package that defines them. [Examples](../how-to/python.md) show them together.
"""

SETTINGS = """### {name}

The settings of [`vidlat {command}`](commands.md#{command}), by the same names with `_` in place of `-`.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add reference/python.md."""
    text = INTRODUCTION
    names = sorted(vidlat.__all__, key=lambda name: (vidlat._MODULES[name], name))
    for room, members in groupby(names, key=lambda name: vidlat._MODULES[name].split(".")[0]):
        text += f"\n## vidlat.{room}\n\n" + "\n".join(_entry(name) for name in members)
    files.append(File.generated(config, "reference/python.md", content=text))
    return files


def _entry(name: str) -> str:
    module = vidlat._MODULES[name]
    if module == "config":
        command = {"FitVAEConfig": "fit-vae"}.get(name, name.removesuffix("Config").lower())
        return SETTINGS.format(name=name, command=command)
    return f"::: vidlat.{module}.{name}\n"

"""The site builds without a warning and loads nothing from elsewhere; pages are right as plain files too."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import click
import pytest
from markdown_it import MarkdownIt

import vidlat
from tests.pages import PAGES, ROOT, code_blocks, commands_of
from vidlat.cli import commands


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return out


class Loaded(HTMLParser):
    """Addresses that a page loads by itself: of scripts, styles and pictures, not of links."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        wanted = {"link": "href", "a": None}.get(tag, "src")
        self.addresses += [value for name, value in attrs if name == wanted]


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        reader = Loaded()
        reader.feed(page.read_text(encoding="utf-8"))
        assert reader.addresses
        assert [each for each in reader.addresses if re.match("[a-z]+:|//", each)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_references_name_every_command_option_and_public_name(site):
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    in_tables = set(re.findall("--?[a-z-]+", " ".join(re.findall("<td><code>(.*?)</code>", page))))
    for name, command in commands.commands.items():
        assert f'id="{name}"' in page
        flags = {flag for param in command.params if isinstance(param, click.Option) for flag in param.opts}
        assert flags <= in_tables
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert [name for name in vidlat.__all__ if f"#vidlat.{vidlat._MODULES[name]}.{name}" not in page] == [
        name for name in vidlat.__all__ if name.endswith("Config")
    ]


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_links_lead_to_files_where_no_site_is_built(page):
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    inline = [each for token in tokens for each in token.children or []]
    targets = [str(each.attrs.get("href", each.attrs.get("src", ""))) for each in inline]
    for target in targets:
        path = target.partition("#")[0]
        assert not path or ":" in path or (page.parent / path).exists(), target


def test_every_command_of_the_pages_is_one_that_the_program_knows(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (in_place_of_flags,) = code_blocks("docs/how-to/training.md", "yaml")
    (tmp_path / "first.yaml").write_text(in_place_of_flags)
    for name in ("VIDLAT_CACHE_DIR", "VIDLAT_CACHE_GB"):
        monkeypatch.setenv(name, "1")  # set by the options, back afterwards
    found = [(page, args) for page in PAGES for code in code_blocks(page) for args in commands_of(code)]
    assert len(found) > 50
    for page, (name, *args) in found:
        command = commands.commands[name]
        try:
            command.make_context(name, args)
        except click.exceptions.Exit:
            pass  # of --help
        except click.ClickException as error:
            pytest.fail(f"{page.name}: vidlat {name} {' '.join(args)}: {error.format_message()}")

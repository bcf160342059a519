"""The code blocks of README.md and of the pages in docs/, for tests that run them as they stand there."""

import re
import shlex
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(page, language=None):
    """The texts of the blocks of a page, a path below the root; of one language, where it is given."""
    tokens = MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8"))
    return [
        token.content
        for token in tokens
        if token.type in ("fence", "code_block") and language in (None, token.info)
    ]


def commands_of(code):
    """The arguments of each `vidlat` command in a block, without comments and what follows in a shell."""
    lines = code.replace("\\\n", " ").splitlines()
    calls = [re.search(r"(?:^|[\s/])(?<!from )vidlat (?=[a-z])(.*)", line) for line in lines]
    return [_until_operator(shlex.split(call[1], comments=True)) for call in calls if call]


def _until_operator(words):
    stops = [index for index, word in enumerate(words) if word in ("|", ">", "&", "&&", ";")]
    return words[: min(stops, default=len(words))]

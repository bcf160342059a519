"""A page: one HTML file that holds all it needs, so that it can be sent and opened anywhere."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidlat import __version__
from vidlat.errors import printable
from vidlat.video.writer import appearing_whole


def write_page(out: Path, template: str, **values: Any) -> None:
    """Fill in a template of this folder and write the page, whole or not at all; raises InputError.

    Every text is escaped, and its control codes are shown. The page allows no script but its own, by its
    hash, and nothing from elsewhere.
    """
    environment = Environment(
        loader=PackageLoader("vidlat", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    folder = files("vidlat") / "report"
    style, script = ((folder / name).read_text() for name in ("page.css", "page.js"))
    text = environment.get_template(template).render(
        **values,
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        version=__version__,
        day=datetime.now(UTC).date().isoformat(),
    )
    with appearing_whole(out) as draft:
        draft.write_text(text, encoding="utf-8")


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

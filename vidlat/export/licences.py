"""How the front matter of a card states a licence."""

from __future__ import annotations

import re
from typing import Any

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""The licences that a hub knows are named like this: apache-2.0, cc-by-nc-4.0."""
_VERSIONED = re.compile(r"[A-Za-z-]+-[0-9]\.[0-9]")
"""Others write them with capitals: Apache-2.0."""


def licence_fields(licence: str) -> dict[str, Any]:
    """The fields for a licence: an identifier that a hub knows, or any other text as a name."""
    if _IDENTIFIER.fullmatch(licence) or _VERSIONED.fullmatch(licence):
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence}

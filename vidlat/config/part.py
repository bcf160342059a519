"""One of several equal parts of a collection of videos, as the jobs of an array share them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from vidlat.checked_settings import MANY
from vidlat.errors import ConfigError, shown


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` of `count`, from 1; every name belongs to one part, wherever and whenever it is asked."""

    number: int
    count: int

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The part that a text such as `3/16` names. Raises ConfigError for any other text."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count <= MANY:
            raise ConfigError(
                f"part: got {shown(text)}; expected I/N with I from 1 to N and N at most {MANY}, such as 3/16"
            )
        return cls(number, count)

    def holds(self, name: str) -> bool:
        """Whether a name belongs to this part, by its SHA-256."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

"""Where the first weights of a run came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from vidlat.documents import Fields

MOST_STEPS = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The weights that a run started from.

    source: an absolute path, or hf://OWNER/NAME. step: of the checkpoint; 0 for a file of weights.
    weights_hash: as `hash_weights`.
    """

    source: str
    step: int
    weights_hash: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """The inverse of `to_dict`; raises ValueError for what is none."""
        return cls(
            source=fields.text("source"),
            step=fields.whole("step", 0, MOST_STEPS),
            weights_hash=fields.text("weights_hash"),
        )

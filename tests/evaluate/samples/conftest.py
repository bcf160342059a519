"""The caches that tests of training use, and the loopback hub of tests/encode."""

from tests.encode.conftest import hub, use_hub
from tests.train.conftest import make_cache

__all__ = ["hub", "make_cache", "use_hub"]

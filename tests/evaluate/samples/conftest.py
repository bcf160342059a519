"""The caches that tests of training use."""

from tests.train.conftest import make_cache

__all__ = ["make_cache"]

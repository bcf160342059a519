"""The caches and trainers that tests of training use."""

from tests.train.conftest import cache, make_cache, make_trainer

__all__ = ["cache", "make_cache", "make_trainer"]

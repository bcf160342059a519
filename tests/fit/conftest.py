"""The loopback hub of tests/encode, from which perceptual networks are fetched too."""

from tests.encode.conftest import hub, use_hub

__all__ = ["hub", "use_hub"]

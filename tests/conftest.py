"""Import the collection by its real name, and the test helpers from the checkout's root."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
for path in (ROOT / "collections", ROOT / "agent_src", ROOT):
    sys.path.insert(0, str(path))

import hypothesis
import pytest

from tests import seen
from tests.doubles.gateway.harness import GatewayHarness


def pytest_configure(config):
    seen.register(config)


@pytest.fixture(scope="session")
def _gateway(tmp_path_factory):
    harness = GatewayHarness(tmp_path_factory.mktemp("gateway"))
    yield harness.start()
    harness.stop()


@pytest.fixture
def gateway(_gateway):
    """An empty gateway double with a real Redis."""
    _gateway.reset()
    return _gateway


# a busy machine must not make a property fail
hypothesis.settings.register_profile("any-speed", deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("any-speed")

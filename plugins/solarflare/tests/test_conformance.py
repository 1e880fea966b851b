"""The conformance kit on every Solarflare family, in each of its modes, on the fake kernel."""

from pathlib import Path

import pytest

from tests.linux.conforming import check, variants

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("family", "mode"), [*variants("solarflare")])
def test_the_plugin_has_every_behaviour(family, mode):
    check(family, mode, Path(__file__).with_name("expected_failures.toml"))

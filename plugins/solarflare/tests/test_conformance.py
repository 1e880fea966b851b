"""The conformance kit on every Solarflare family, in each of its modes, on the fake kernel."""

import pytest

from tests.linux.conforming import check, variants

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("family", "mode"), [*variants("solarflare")])
def test_the_plugin_has_every_behaviour(family, mode):
    check(family, mode)

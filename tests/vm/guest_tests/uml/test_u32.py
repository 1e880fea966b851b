"""u32 on this kernel: the tests that also run on the host's, with 500 random filters against tc in both directions."""

from tests.kernel.test_u32_native import *  # noqa: F403

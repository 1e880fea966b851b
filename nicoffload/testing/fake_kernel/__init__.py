"""A Linux kernel in memory with emulated NICs beneath, behind the seam of the real one.

`nicoffload.testing` offers what is public of it.
"""

from nicoffload.testing.fake_kernel.errnos import WouldWaitForeverError as WouldWaitForeverError
from nicoffload.testing.fake_kernel.kernel import FakeKernel as FakeKernel
from nicoffload.testing.fake_kernel.kernel import Request as Request
from nicoffload.testing.fake_kernel.world import FakeFunction as FakeFunction
from nicoffload.testing.fake_kernel.world import FakeNetdev as FakeNetdev
from nicoffload.testing.fake_kernel.world import FakeNic as FakeNic
from nicoffload.testing.fake_kernel.world import FeatureState as FeatureState
from nicoffload.testing.fake_kernel.world import Namespace as Namespace
from nicoffload.testing.fake_kernel.world import NetdevKind as NetdevKind
from nicoffload.testing.fake_kernel.world import Watcher as Watcher
from nicoffload.testing.fake_kernel.world import World as World

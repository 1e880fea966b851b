"""For tests of whoever uses or extends nicoffload: emulated NICs, a fake kernel, and the conformance kit."""

from nicoffload.testing.fake_kernel import FakeKernel

__all__ = ["FakeKernel"]

"""The rtnetlink half of the fake kernel: links with their VFs, qdiscs, and filters with their actions."""

from nicoffload.testing.fake_kernel.route.server import RouteServer

__all__ = ["RouteServer"]

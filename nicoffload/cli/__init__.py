"""The programs ``nicoffload`` and ``flexivoffload``."""

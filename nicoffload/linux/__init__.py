"""The driver contract on a live Linux NIC: facets over `nicoffload.kernel`, driven by the NIC's profile."""

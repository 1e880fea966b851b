"""Pytest fixtures that give a test its own emulated NIC."""

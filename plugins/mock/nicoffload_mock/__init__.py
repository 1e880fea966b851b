"""An emulated NIC that takes on any installed profile, for testing without hardware or root: a plugin of nicoffload."""

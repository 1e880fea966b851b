"""NIC profiles of Solarflare adapters (Falcon, Siena, EF10, EF100, and the SFN5122F), as a plugin of nicoffload."""

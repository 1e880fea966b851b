"""NIC profiles of Intel adapters (igb, ixgbe, i40e, ice), as a plugin of nicoffload."""

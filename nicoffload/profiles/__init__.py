"""NIC profiles: one document per NIC family that says what it can do and how it fails."""

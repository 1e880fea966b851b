"""The emulated hardware and kernel driver: requests in, errnos and packets out. Knows nothing of the SDK's facets."""

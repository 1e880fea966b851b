"""Builds kernels, boots them, and runs pytest inside: `make test-vm`. See docs/howto/run-tests-on-a-real-kernel.md."""

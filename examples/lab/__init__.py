"""A lab on one machine: VMs, a virtual switch and the software NIC, with real packets between them.

Run it as root with ``make lab``. It uses what anybody can use of nicoffload, and keeps to namespaces of its own.
"""

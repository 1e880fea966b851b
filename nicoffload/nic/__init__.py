"""One NIC, open: every change is planned, journalled, applied, read back, and undone if it failed."""

from nicoffload.nic.facade import Nic
from nicoffload.nic.opening import open_nic
from nicoffload.nic.values import (
    ApplyReport,
    DesiredState,
    FlowReport,
    Lease,
    LeaseRelease,
    OwnedRule,
    Plan,
    Recovery,
    Step,
)

__all__ = [
    "ApplyReport",
    "DesiredState",
    "FlowReport",
    "Lease",
    "LeaseRelease",
    "Nic",
    "OwnedRule",
    "Plan",
    "Recovery",
    "Step",
    "open_nic",
]

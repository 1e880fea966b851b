"""The matchall classifier: every packet of a protocol; what a port-wide police or mirror hangs on."""

from __future__ import annotations

from nicoffload.errors import NotSupportedError, Reason
from nicoffload.kernel.tc.flower import ETH_P_ALL
from nicoffload.kernel.tc.template import Keys
from nicoffload.model import Masked, Match

CAPABILITY = "flow_filters.matchall"
CLASSID = 1
ACT = 2
FLAGS = 3


def compile_keys(match: Match) -> Keys:
    """Return the protocol of a match that names none but an Ethernet type.

    Raises:
        NotSupportedError: It names more.
    """
    reasons = [
        Reason(code="field.unknown", path=f"/match/{name}", message="matchall has no keys", accepted="flower")
        for name, mask in match.shape
        if name != "eth_type" or mask != 0xFFFF
    ]
    if reasons:
        raise NotSupportedError(
            "tc matchall can't match this", capability=CAPABILITY, reasons=reasons, path=reasons[0].path
        )
    protocol = match.eth_type.value if isinstance(match.eth_type, Masked) else ETH_P_ALL
    return Keys(data=b"", slots=(), protocol=protocol)

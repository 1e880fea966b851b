"""FlexivOffload: which flows the NIC carries and which the virtual switch, chosen while each flow lives."""

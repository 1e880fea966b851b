"""The data path without eBPF: filters of u32 that redirect packets between the devices."""

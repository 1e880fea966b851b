"""eBPF without libbpf: objects read from ELF, maps written and read in batches or mapped, programs found again."""

from nicoffload.kernel.bpf.elf import MapShape, ObjectFile, read_object
from nicoffload.kernel.bpf.maps import BpfMap, create_map, possible_cpus
from nicoffload.kernel.bpf.programs import bind_map, load_program, maps_of_program, open_program, require_bpf
from nicoffload.kernel.bpf.readers import await_readers
from nicoffload.kernel.bpf.tcx import attach_ingress

__all__ = [
    "BpfMap",
    "MapShape",
    "ObjectFile",
    "attach_ingress",
    "await_readers",
    "bind_map",
    "create_map",
    "load_program",
    "maps_of_program",
    "open_program",
    "possible_cpus",
    "read_object",
    "require_bpf",
]

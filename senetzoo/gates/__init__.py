"""The gates, one file each: a frozen spec and its module."""

from senetzoo.gates.bam import BAM
from senetzoo.gates.cbam import CBAM
from senetzoo.gates.coord import CoordinateAttention
from senetzoo.gates.eca import ECA
from senetzoo.gates.ela import ELA
from senetzoo.gates.ese import ESE
from senetzoo.gates.fca import FCA
from senetzoo.gates.gc import GC
from senetzoo.gates.gct import GCT
from senetzoo.gates.ge import GE
from senetzoo.gates.multiscale import MultiScaleAttention
from senetzoo.gates.non_local import NonLocal
from senetzoo.gates.scse import SCSE
from senetzoo.gates.se import SE
from senetzoo.gates.sge import SGE
from senetzoo.gates.shuffle import ShuffleAttention
from senetzoo.gates.simam import SimAM
from senetzoo.gates.srm import SRM
from senetzoo.gates.triplet import TripletAttention
from senetzoo.policies.algebra import Gate

GATES: dict[str, type[Gate]] = {
    gate.name: gate
    for gate in (
        SE,
        ECA,
        CBAM,
        SCSE,
        GE,
        SRM,
        GCT,
        CoordinateAttention,
        ESE,
        BAM,
        SimAM,
        GC,
        TripletAttention,
        SGE,
        FCA,
        ShuffleAttention,
        MultiScaleAttention,
        ELA,
        NonLocal,
    )
}
"""Spec of each gate by its name in policy text."""

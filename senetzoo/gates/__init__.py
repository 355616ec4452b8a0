"""The gates: one file each, a frozen spec and its module."""

from senetzoo.gates.bam import BAM
from senetzoo.gates.cbam import CBAM
from senetzoo.gates.coord import CoordinateAttention
from senetzoo.gates.eca import ECA
from senetzoo.gates.ese import ESE
from senetzoo.gates.gct import GCT
from senetzoo.gates.ge import GE
from senetzoo.gates.scse import SCSE
from senetzoo.gates.se import SE
from senetzoo.gates.simam import SimAM
from senetzoo.gates.srm import SRM
from senetzoo.policies.algebra import Gate

GATES: dict[str, type[Gate]] = {
    gate.name: gate
    for gate in (SE, ECA, CBAM, SCSE, GE, SRM, GCT, CoordinateAttention, ESE, BAM, SimAM)
}
"""Spec of each gate by its name in text."""

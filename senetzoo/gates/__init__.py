"""The gates: one file each, a frozen spec and its module."""

from senetzoo.gates.eca import ECA
from senetzoo.gates.se import SE
from senetzoo.policies.algebra import Gate

GATES: dict[str, type[Gate]] = {gate.name: gate for gate in (SE, ECA)}
"""Spec of each gate by its name in text."""

"""Inspect the gates of a network on data, and where the network looks."""

from senetzoo.inspect.cam import grad_cam as grad_cam
from senetzoo.inspect.cam import layer_cam as layer_cam
from senetzoo.inspect.evidence import Evidence as Evidence
from senetzoo.inspect.evidence import evidence as evidence
from senetzoo.inspect.excitations import Excitation as Excitation
from senetzoo.inspect.excitations import drift as drift
from senetzoo.inspect.excitations import excitations as excitations

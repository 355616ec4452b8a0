"""What the gates of a network do with data."""

from senetzoo.inspect.excitations import Excitation as Excitation
from senetzoo.inspect.excitations import drift as drift
from senetzoo.inspect.excitations import excitations as excitations
from senetzoo.inspect.prune import Pruned as Pruned
from senetzoo.inspect.prune import prune_gates as prune_gates

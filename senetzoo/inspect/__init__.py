"""What the gates of a network do with data."""

from senetzoo.inspect.excitations import Excitation as Excitation
from senetzoo.inspect.excitations import excitations as excitations

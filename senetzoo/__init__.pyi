"""What the package exports; `__init__.py` reads it to find a name when it is first used."""

from senetzoo.deploy.export import export as export
from senetzoo.deploy.optimize import optimize as optimize
from senetzoo.errors import SenetzooError as SenetzooError
from senetzoo.eval.accuracy import evaluate as evaluate
from senetzoo.gates.bam import BAM as BAM
from senetzoo.gates.cbam import CBAM as CBAM
from senetzoo.gates.coord import CoordinateAttention as CoordinateAttention
from senetzoo.gates.eca import ECA as ECA
from senetzoo.gates.ese import ESE as ESE
from senetzoo.gates.gct import GCT as GCT
from senetzoo.gates.ge import GE as GE
from senetzoo.gates.scse import SCSE as SCSE
from senetzoo.gates.se import SE as SE
from senetzoo.gates.simam import SimAM as SimAM
from senetzoo.gates.srm import SRM as SRM
from senetzoo.io.hub import push as push
from senetzoo.io.save import save as save
from senetzoo.nn.backbone import Backbone as Backbone
from senetzoo.nn.stem import Stem as Stem
from senetzoo.nn.transforms import transforms as transforms
from senetzoo.own import register as register
from senetzoo.policies.algebra import NONE as NONE
from senetzoo.policies.algebra import Policy as Policy
from senetzoo.policies.attach import detach as detach
from senetzoo.policies.foreign.places import site_map as site_map
from senetzoo.policies.foreign.propose import propose as propose
from senetzoo.policies.foreign.sitemap import Place as Place
from senetzoo.policies.foreign.sitemap import SiteMap as SiteMap
from senetzoo.policies.selectors import block as block
from senetzoo.policies.selectors import branch as branch
from senetzoo.policies.selectors import stage as stage
from senetzoo.spec import policy as policy
from senetzoo.surgery import attach as attach
from senetzoo.surgery import explain as explain
from senetzoo.train.finetune import finetune as finetune
from senetzoo.train.recorder import Recorder as Recorder
from senetzoo.zoo import config as config
from senetzoo.zoo import create as create
from senetzoo.zoo import list_models as list_models
from senetzoo.zoo import load as load

__version__: str

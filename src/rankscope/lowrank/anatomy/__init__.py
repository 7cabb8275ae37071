"""Anatomy of a change: whose directions it consists of. One file an idea; `anatomy` puts them together."""

from rankscope.lowrank.anatomy.describe import TRIALS as TRIALS
from rankscope.lowrank.anatomy.describe import Described as Described
from rankscope.lowrank.anatomy.describe import anatomy as anatomy
from rankscope.lowrank.anatomy.describe import weights_of as weights_of
from rankscope.lowrank.anatomy.growth import growth as growth
from rankscope.lowrank.anatomy.growth import half_growth as half_growth
from rankscope.lowrank.anatomy.intruders import Intruders as Intruders
from rankscope.lowrank.anatomy.intruders import intruders as intruders
from rankscope.lowrank.anatomy.intruders import intruders_between as intruders_between
from rankscope.lowrank.anatomy.products import Product as Product
from rankscope.lowrank.anatomy.products import products as products
from rankscope.lowrank.anatomy.scaling import Scaling as Scaling
from rankscope.lowrank.anatomy.scaling import scaling as scaling
from rankscope.lowrank.anatomy.shares import Components as Components
from rankscope.lowrank.anatomy.shares import components as components
from rankscope.lowrank.anatomy.shares import shares as shares
from rankscope.lowrank.anatomy.subspaces import Null as Null
from rankscope.lowrank.anatomy.subspaces import basis as basis
from rankscope.lowrank.anatomy.subspaces import null as null
from rankscope.lowrank.anatomy.subspaces import overlaps as overlaps
from rankscope.lowrank.anatomy.visibility import Visibility as Visibility
from rankscope.lowrank.anatomy.visibility import visibility as visibility

"""What the charts of a run show, computed from its folder: as numbers, as tables and in words."""

from gfb_integrations.plots.data.bits import BitsPerLayer
from gfb_integrations.plots.data.clipping import Clipping
from gfb_integrations.plots.data.comparison import Comparison
from gfb_integrations.plots.data.convergence import Convergence
from gfb_integrations.plots.data.front import Front
from gfb_integrations.plots.data.layer_costs import LayerCosts
from gfb_integrations.plots.data.resources import ResourcesPerLayer
from gfb_integrations.plots.data.sensitivity import Sensitivity
from gfb_integrations.plots.data.table import ChartData, DataTable
from gfb_integrations.plots.data.training import Training

__all__ = [
    "BitsPerLayer",
    "ChartData",
    "Clipping",
    "Comparison",
    "Convergence",
    "DataTable",
    "Front",
    "LayerCosts",
    "ResourcesPerLayer",
    "Sensitivity",
    "Training",
]

"""Between Brevitas models and the search: discover, make searchable, freeze back."""

from gfb_brevitas.adapters import brevitas_fixes
from gfb_brevitas.adapters.float_model import quantize_float_model
from gfb_brevitas.adapters.freezing import apply_allocation
from gfb_brevitas.adapters.layer_recording import record_layers
from gfb_brevitas.adapters.searchable import SearchableModel, make_searchable

__all__ = ["SearchableModel", "apply_allocation", "make_searchable", "quantize_float_model", "record_layers"]

brevitas_fixes.restore_quant_cat()
brevitas_fixes.restore_recurrent_loading()

"""What connects :mod:`gfb_brevitas` to other tools, one subpackage per tool.

Each works on *plain Brevitas models* (what a search hands back) and needs its own optional
dependencies, which are imported when they are first used. ``import gfb_integrations`` imports none of
them; a function whose dependency is missing raises
:class:`~gfb_brevitas.errors.MissingExtraError` with the command that installs it.

* :mod:`gfb_integrations.qonnx`: export to QONNX, and proof that the file computes what the model does
  (in a clone: ``pip install '.[export]'``).
* :mod:`gfb_integrations.onnxruntime`: the same as QCDQ, executed with ONNX Runtime (extra ``export``).
* :mod:`gfb_integrations.finn`: what FINN builds, its estimates and its proof (extra ``finn``).
* :mod:`gfb_integrations.mlflow`: tracking (extra ``mlflow``).
* :mod:`gfb_integrations.optuna_dashboard`: notes and plots for optuna-dashboard (extra ``dashboard``).
* :mod:`gfb_integrations.plots`: figures of a run, interactive (extra ``report``) and for papers (extra
  ``plots``).
* :mod:`gfb_integrations.report`: a run explained in one HTML file (extra ``report``).
"""

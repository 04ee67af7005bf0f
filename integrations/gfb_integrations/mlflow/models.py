"""The final model in MLflow: as ONNX that MLflow can load and serve."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gfb_brevitas.files import put_in_place
from gfb_integrations.mlflow.spool import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_TAG = "gfb_brevitas.model"


def log_onnx(
    client: MlflowClient, uri: str, experiment: str | None, run_id: str, folder: Path, event: Event
) -> None:
    """Log a model that was saved in the spool, and register it; nothing that is there already is repeated.

    The global state of MLflow is set, so this is for the courier alone.

    Args:
        client: The client.
        uri: The server or store.
        experiment: Id of the experiment.
        run_id: The run.
        folder: The spool.
        event: Names the model's folder in the spool, its name, and the name to register it under.
    """
    import mlflow
    from mlflow.entities import LoggedModelStatus

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiment)
    query = f"tags.`{MODEL_TAG}` = '{_key(event)}'"
    found = client.search_logged_models([experiment or ""], filter_string=query, max_results=1)
    ready = [model for model in found if model.status == LoggedModelStatus.READY]
    model_id = ready[0].model_id if ready else _logged(run_id, folder / event["path"], event)
    if event.get("registered_name"):
        _register(client, f"models:/{model_id}", run_id, event)


def _logged(run_id: str, folder: Path, event: Event) -> str:
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import Schema, TensorSpec

    described = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    inputs, outputs = (
        Schema([TensorSpec(np.dtype(t["type"]), t["shape"], t["name"]) for t in described[side]])
        for side in ("inputs", "outputs")
    )
    with np.load(folder / "example.npz", allow_pickle=False) as file:
        example = {name: file[name] for name in file.files}
    info = Model.log(
        artifact_path=None,
        name=event["name"],
        flavor=mlflow.onnx,
        run_id=run_id,
        tags={MODEL_TAG: _key(event)},
        onnx_model=onnx.load(folder / "model.onnx"),
        signature=ModelSignature(inputs=inputs, outputs=outputs),
        input_example=example,
        # Given, since working them out takes an interpreter of its own.
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnx", "onnxruntime")],
        save_as_external_data=False,
    )
    return str(info.model_id)


def _key(event: Event) -> str:
    return f"{event['unique']}/{event['path']}"


def _register(client: MlflowClient, source: str, run_id: str, event: Event) -> None:
    import mlflow

    name = event["registered_name"]
    # By the run, not by the name: a name may hold what a filter cannot.
    of_run = client.search_model_versions(f"run_id = '{run_id}'")
    if not any(version.name == name and version.source == source for version in of_run):
        mlflow.register_model(source, name, await_registration_for=None)


def save_for_mlflow(model: Any, example: Any, folder: Path) -> None:
    """Write a model as QCDQ (ONNX's own quantization operators), with its signature and an example.

    Args:
        model: A plain Brevitas model.
        example: An input, samples first; a tuple when the model takes several.
        folder: Where to.

    Raises:
        ExportError: If ONNX's operators cannot carry the model; it says why.
    """
    import numpy as np

    from gfb_integrations.onnxruntime import export_qcdq, run

    inputs = example if isinstance(example, tuple) else (example,)
    folder.mkdir(parents=True, exist_ok=True)
    export_qcdq(model, example, folder / "model.onnx", verify_on=example)
    outputs = run(folder / "model.onnx", example)
    arrays = {f"input_{i}": value.detach().cpu().numpy() for i, value in enumerate(inputs)}
    results = dict(zip(_output_names(folder / "model.onnx"), outputs, strict=True))
    np.savez(folder / "example.npz", **arrays)
    signature = {"inputs": _tensors(arrays), "outputs": _tensors(results)}
    (folder / "signature.json").write_text(json.dumps(signature), encoding="utf-8")


def saved_once(model: Any, example: Any, folder: Path, name: str) -> Path:
    """Write a model as :func:`save_for_mlflow` does, into a folder named after what it holds.

    Args:
        model: A plain Brevitas model.
        example: An input, samples first; a tuple when the model takes several.
        folder: Where the folder is made.
        name: First part of its name.

    Returns:
        The folder: that of before, if the same model was written there.

    Raises:
        ExportError: If ONNX's operators cannot carry the model; it says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as temporary:
        made = Path(temporary) / name
        save_for_mlflow(model, example, made)
        place = folder / f"{name}-{sha256((made / 'model.onnx').read_bytes()).hexdigest()[:12]}"
        if not place.exists():
            put_in_place(made, place)
    return place


def _output_names(path: Path) -> list[str]:
    import onnx

    return [output.name for output in onnx.load(path, load_external_data=False).graph.output]


def _tensors(arrays: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": array.dtype.name, "shape": [-1, *array.shape[1:]]}
        for name, array in arrays.items()
    ]

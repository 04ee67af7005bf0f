"""The final model in MLflow: loaded and served as it was searched."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from typer.testing import CliRunner

from gfb_brevitas import Range
from gfb_brevitas.errors import ConfigurationError
from gfb_integrations.mlflow import MlflowTracking
from gfb_integrations.mlflow.cli import app
from gfb_integrations.mlflow.spool import Delivered
from tests.core.search.small_problem import network, run, searchable
from tests.core.search.small_problem import points as samples
from tests.integrations.mlflow.reading import SQLALCHEMY
from tests.integrations.mlflow.servers import MlflowServer

pytestmark = [
    pytest.mark.filterwarnings(SQLALCHEMY),
    # MLflow says this of its own types when the module that loads models is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def test_the_model_is_registered_and_computes_what_was_searched(
    shared_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = samples().tensors[0]
    with MlflowTracking(shared_server.url, timeout_s=60) as tracking:
        model = searchable(network(), rules=(Range("*", 2, 8),))
        result = run(model, callbacks=[tracking], run_folder=tmp_path / "run")
        assert tracking.log_model(result, inputs[:4], registered_name="searched")
    client = MlflowClient(shared_server.url)
    (version,) = client.search_model_versions("name = 'searched'")
    assert version.run_id == tracking.run_id

    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared_server.url)
    loaded = mlflow.pyfunc.load_model(f"models:/searched/{version.version}")
    with torch.no_grad():
        expected = result.model(inputs).numpy()
    found = next(iter(loaded.predict({"input_0": inputs.numpy()}).values()))
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
    assert np.abs(found - expected).max() < 0.5
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 8)
    assert loaded.metadata.saved_input_example_info is not None

    # Delivered again, as after a courier that was killed before it could note it: there is still one.
    folder = tmp_path / "run" / "mlflow"
    state = Delivered.load(folder)
    state.offsets.clear()
    state.save(folder)
    assert CliRunner().invoke(app, ["deliver", str(tmp_path / "run")]).exit_code == 0
    assert len(client.search_model_versions("name = 'searched'")) == 1
    assert state.experiment is not None
    models = client.search_logged_models([state.experiment])
    assert len([m for m in models if m.source_run_id == tracking.run_id]) == 1


def test_a_model_that_onnx_cannot_carry_is_not_logged_and_a_tag_says_why(
    shared_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with MlflowTracking(shared_server.url, timeout_s=60) as tracking:
        model = searchable(network(), rules=(Range("0.weight_quant", 1, 1),))
        result = run(model, callbacks=[tracking], run_folder=tmp_path / "run")
        assert min(result.allocation.values()) == 1
        assert not tracking.log_model(result, samples().tensors[0][:4])
    assert "widths begin at 2 bits" in caplog.text
    tags = MlflowClient(shared_server.url).get_run(str(tracking.run_id)).data.tags
    assert "widths begin at 2 bits" in tags["gfb_brevitas.model"]


def test_every_model_that_is_another_one_is_registered_once(
    shared_server: MlflowServer, tmp_path: Path
) -> None:
    inputs, client = samples().tensors[0], MlflowClient(shared_server.url)
    with MlflowTracking(shared_server.url, timeout_s=60) as tracking:
        model = searchable(network(), rules=(Range("*", 2, 8),))
        result = run(model, callbacks=[tracking], run_folder=tmp_path / "run")
        for _ in range(2):
            assert tracking.log_model(result, inputs[:4], registered_name="it is ours")
        with torch.no_grad():
            result.model[0].weight.mul_(-1.0)
        assert tracking.log_model(result, inputs[:4], registered_name="it is ours")
        for name, registered in (("a/b", None), ("a", "it's"), ("a", "b/c"), ("a", "b:c")):
            with pytest.raises(ConfigurationError, match="The name of a model"):
                tracking.log_model(result, inputs[:4], name=name, registered_name=registered)
    with MlflowTracking(shared_server.url, timeout_s=60) as again:
        again_model = searchable(network(), rules=(Range("*", 2, 8),))
        result = run(again_model, callbacks=[again], run_folder=tmp_path / "run", resume=True)
        assert again.log_model(result, inputs[:4], registered_name="it is ours")
    assert again.run_id == tracking.run_id
    versions = client.search_model_versions("name = 'it is ours'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    experiment = client.get_run(str(tracking.run_id)).info.experiment_id
    models = client.search_logged_models([experiment])
    assert len([m for m in models if m.source_run_id == tracking.run_id]) == 2

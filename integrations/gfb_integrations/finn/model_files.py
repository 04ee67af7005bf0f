"""ONNX files, looked at before FINN gets them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gfb_brevitas.errors import ConfigurationError, ExportError

_ADVICE = "Give a QONNX file, as gfb_integrations.qonnx.export_qonnx writes it."


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """An ONNX file.

    Attributes:
        path: Its absolute path.
        output_shape: Shape of its output, one sample long; ``None`` where it has several or the file does not
            say.
    """

    path: Path
    output_shape: tuple[int, ...] | None


def model_file(path: str | Path) -> ModelFile:
    """Look at an ONNX file.

    Raises:
        ExportError: If there is no such file, or it holds no model.
        ConfigurationError: If ``path`` is no path.
    """
    import onnx

    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(f"The model must be the path of a QONNX file; got {path!r:.200}.")
    source = Path(path).absolute()
    if not source.is_file():
        raise ExportError(f"There is no file {str(path)!r}. Give a QONNX file.")
    try:
        graph = onnx.load(source, load_external_data=False).graph
    except OSError as error:
        raise ExportError(f"{str(path)!r} cannot be read ({error.strerror}).") from error
    except Exception as error:  # protobuf's own
        raise ExportError(f"{str(path)!r} is not an ONNX model, or a damaged one. {_ADVICE}") from error
    if not graph.node or not graph.output:
        raise ExportError(f"{str(path)!r} holds no ONNX model with layers. {_ADVICE}")
    shapes = [
        tuple(int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim)
        for value in graph.output
    ]
    known = len(shapes) == 1 and shapes[0] and all(shapes[0])
    return ModelFile(path=source, output_shape=shapes[0] if known else None)

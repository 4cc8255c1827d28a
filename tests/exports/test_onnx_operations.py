"""What ONNX can't run is refused before it is shipped."""

import onnx
import pytest

from frostline.errors import UserError
from frostline.exports import onnx_operations


def test_a_file_that_onnx_cannot_run_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Unheard", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"onnx can't express this network .*Unheard"):
        onnx_operations.check(tmp_path / "model.onnx")

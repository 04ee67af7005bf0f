from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import AllocationError

ALLOCATION = BitAllocation({"conv.weight": 3, "relu.act": 4})


class TestMapping:
    def test_reads_like_a_dictionary(self):
        assert dict(ALLOCATION) == {"conv.weight": 3, "relu.act": 4}
        assert ALLOCATION["relu.act"] == 4
        assert list(ALLOCATION) == ["conv.weight", "relu.act"]
        assert len(ALLOCATION) == 2
        assert "conv" not in ALLOCATION

    def test_equal_and_hashed_by_content_in_any_order(self):
        other = BitAllocation({"relu.act": 4, "conv.weight": 3})
        assert other == ALLOCATION
        assert len({ALLOCATION, other}) == 1
        assert BitAllocation({"conv.weight": 3, "relu.act": 5}) != ALLOCATION

    def test_changing_the_source_changes_nothing(self):
        source = {"a": 1}
        allocation = BitAllocation(source)
        source["a"] = 2
        assert allocation["a"] == 1
        with pytest.raises(TypeError):
            allocation["a"] = 2

    def test_replace_makes_a_copy(self):
        allocation = BitAllocation({"a": 1, "b": 2})
        assert allocation.replace(b=5) == BitAllocation({"a": 1, "b": 5})
        assert allocation["b"] == 2
        with pytest.raises(AllocationError):
            allocation.replace(b=0)

    def test_survives_pickling(self):
        assert pickle.loads(pickle.dumps(ALLOCATION)) == ALLOCATION

    @pytest.mark.parametrize("width", [3, 3.0, np.int64(3), np.float32(3)])
    def test_whole_numbers_of_any_type_become_int(self, width):
        assert type(BitAllocation({"a": width})["a"]) is int

    @pytest.mark.parametrize(
        "width", [0, -1, 33, 2.5, float("nan"), float("inf"), "4", None, True, [4], 10**30]
    )
    def test_other_widths_are_refused_by_name_and_value(self, width):
        with pytest.raises(AllocationError, match="'conv'"):
            BitAllocation({"conv": width})

    def test_names_must_be_strings(self):
        with pytest.raises(AllocationError, match="got 3: 4"):
            BitAllocation({3: 4})

    def test_required_names_are_exact(self):
        ALLOCATION.require_names(["relu.act", "conv.weight"])
        with pytest.raises(AllocationError, match="it lacks fc.weight; the model has no relu.act"):
            ALLOCATION.require_names(["conv.weight", "fc.weight"])


class TestFile:
    @given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(1, 32)))
    def test_json_round_trip(self, bits):
        allocation = BitAllocation(bits)
        assert BitAllocation.from_json(allocation.to_json()) == allocation

    def test_the_text_is_versioned(self):
        assert json.loads(ALLOCATION.to_json()) == {
            "format": "gfb_brevitas.allocation",
            "version": 1,
            "bits": {"conv.weight": 3, "relu.act": 4},
            "checksum": "90720367cec3b133",
        }

    def test_a_changed_file_is_refused_unless_its_checksum_is_removed(self):
        document = json.loads(ALLOCATION.to_json())
        document["bits"]["conv.weight"] = 7
        with pytest.raises(AllocationError, match='checksum differs.*remove the entry "checksum"'):
            BitAllocation.from_json(json.dumps(document))
        del document["checksum"]
        assert BitAllocation.from_json(json.dumps(document))["conv.weight"] == 7

    def test_save_and_load(self, tmp_path):
        path = tmp_path / "runs" / "best.json"
        ALLOCATION.save(path)
        assert BitAllocation.load(path) == ALLOCATION
        assert BitAllocation.load(str(path)) == ALLOCATION

    @pytest.mark.parametrize(
        "text, message",
        [
            ("", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("3", "must be a JSON object"),
            ('{"bits": {}}', '"format": "gfb_brevitas.allocation"'),
            ('{"format": "gfb_brevitas.allocation", "version": 2, "bits": {}}', "version 1; got 2"),
            ('{"format": "gfb_brevitas.allocation", "version": 1}', '"bits" must map'),
            ('{"format": "gfb_brevitas.allocation", "version": 1, "bits": {"a": 1e999}}', "got inf"),
            ('{"format": "gfb_brevitas.allocation", "version": 1, "bits": {"a": 1, "a": 2}}', "repeated key"),
        ],
    )
    def test_bad_files_are_refused_by_path_and_reason(self, tmp_path, text, message):
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(AllocationError, match=message) as caught:
            BitAllocation.load(path)
        assert str(path) in str(caught.value)

    def test_files_that_cannot_be_read(self, tmp_path):
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
        for path in (tmp_path / "none.json", tmp_path, tmp_path / "binary.json"):
            with pytest.raises(AllocationError, match="cannot be read"):
                BitAllocation.load(path)


@pytest.mark.parametrize("path", ["allocation.json", Path("allocation.json")])
def test_a_path_is_not_an_allocation(path):
    with pytest.raises(AllocationError, match=r"got .*allocation.json.*BitAllocation\.load"):
        BitAllocation(path)


@pytest.mark.parametrize("value", [None, 3, [("a", 3)]])
def test_an_allocation_is_a_mapping(value):
    with pytest.raises(AllocationError, match="maps quantizer names to bit widths; got"):
        BitAllocation(value)

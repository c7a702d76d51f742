"""The contract sheet as data: what the programs and documents of TensorRT-LLM, Triton and vLLM take.

`table(name)` looks one up; `complaints(name, argv)` and `document_complaints(name, document)` judge by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine_builder.contract import build_programs, documents, head_programs, serve_programs
from engine_builder.contract.check import Complaint, check_arguments, check_document
from engine_builder.contract.options import Option, Table
from engine_builder.contract.versions import PINNED

TABLES: Mapping[str, Table] = {
    table.name: table
    for module in (build_programs, head_programs, serve_programs, documents)
    for table in vars(module).values()
    if isinstance(table, Table)
}


def table(name: str) -> Table:
    """What a program (`trtllm-build`) or document (`model.yaml`) takes. Raises KeyError."""
    return TABLES[name]


def complaints(name: str, argv: Sequence[str], version: str = PINNED) -> list[Complaint]:
    """What is wrong with a program's arguments in that version; an empty list: nothing."""
    return check_arguments(TABLES[name], argv, version)


def document_complaints(name: str, document: Mapping[str, Any], version: str = PINNED) -> list[Complaint]:
    """What is wrong with a document, maps in it included."""
    return check_document(TABLES[name], document, version, TABLES)


__all__ = ["PINNED", "TABLES", "Complaint", "Option", "Table", "complaints", "document_complaints", "table"]

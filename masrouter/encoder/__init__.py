"""Query text -> vector.

Encoders stand behind one small protocol: `SentenceTransformerEncoder`, any sentence-transformers
model with verified weights in torch; `ExportedEncoder`, the same model in a faster runtime and
without torch; and `HashingEncoder`, which needs no model at all. `load_encoder` makes each from its
name. No text is ever cut off silently.

    weights.py               finds and verifies a model      windows.py    long texts in parts
    sentence_transformer.py  runs it in torch                memo.py       repeated texts
    export.py, export_files  makes and checks an export      batching.py   concurrent texts
    exported.py              runs it: onnx_runtime, openvino_runtime
    embedding_cache.py       vectors on disk
"""

from masrouter.encoder.exported import ExportedEncoder
from masrouter.encoder.load import Encoder, HashingEncoder, load_encoder
from masrouter.encoder.sentence_transformer import SentenceTransformerEncoder

__all__ = [
    "Encoder",
    "ExportedEncoder",
    "HashingEncoder",
    "SentenceTransformerEncoder",
    "load_encoder",
]

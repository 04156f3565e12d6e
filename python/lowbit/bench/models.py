"""(N, K) of the linear layers of language models, each shape once, from their published configs.

A model's shapes follow from the hidden size h, the intermediate size i and the width v of its keys
and values: h x h, v x h (where v differs), i x h and h x i.
"""

MODELS: dict[str, tuple[tuple[int, int], ...]] = {
    "llama2-7b": ((4096, 4096), (11008, 4096), (4096, 11008)),
    "llama3-8b": ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)),
    "llama3-70b": ((8192, 8192), (1024, 8192), (28672, 8192), (8192, 28672)),
    "qwen2.5-7b": ((3584, 3584), (512, 3584), (18944, 3584), (3584, 18944)),
}

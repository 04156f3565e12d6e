"""ggml's matrix product with a weight in one of its quantized types.

The weight lies in a buffer of ggml's own, repacked where it has a layout for this CPU; cold copies
are further nodes of one graph.
"""

from __future__ import annotations

import concurrent.futures
import weakref

import torch

from lowbit.bench.entries import Entry, Workload
from lowbit.bench.peers._ggml_library import Library, load

_F32 = 0  # GGML_TYPE_F32
_CONTEXT_BYTES = 1 << 20  # a graph takes about 100 KiB, each tensor 0.4

Types = dict[int, int]  # bits of our weight -> ggml_type


def unsupported(workload: Workload, types: Types) -> str | None:
    """Why the workload cannot be run; None if it can."""
    if workload.x.device.type != "cpu":
        return "it runs on cpu here"
    if workload.weight.bits not in types:
        return f"it has {', '.join(map(str, types))} bits"
    library = load()
    if isinstance(library, str):
        return library
    block = library.get_type_traits(types[workload.weight.bits]).contents.blck_size
    if workload.weight.shape[1] % block:
        return f"it takes blocks of {block} that divide K"
    return None


def prepare(workload: Workload, types: Types) -> Entry:
    """The float weight in a type of about as many bits, x in float32."""
    library, kind = load(), types[workload.weight.bits]
    original, x = workload.layer.original.contiguous(), workload.x.float().clone()
    n, k = original.shape
    data = _quantize(library, kind, original)
    memory = _memory(library, kind, n, x)

    def graph(count: int) -> _Run:
        run = _Run(library, memory, kind, n, x, count)
        run.set_weights(data)
        return run

    names = library.get_type_traits(kind).contents.type_name, library.backend_buft_name(memory)
    run = graph(1)
    return Entry(
        "ggml {} ({})".format(*(name.decode() for name in names)),
        lambda run: run(),
        (run,),
        _dequantize(library, kind, data, n, k),
        graph=graph,
        nbytes=run.weight_bytes,
        arithmetic="int8",
    )


def _quantize(library: Library, kind: int, original: torch.Tensor) -> torch.Tensor:
    """uint8 [N, bytes of a row] by ggml's own quantizer, some rows a task."""
    n, k = original.shape
    data = torch.empty(n, library.row_size(kind, k), dtype=torch.uint8)
    step = -(-n // torch.get_num_threads())

    def rows(first: int) -> None:
        count = min(step, n - first)
        pointers = original.data_ptr(), data.data_ptr()
        library.quantize_chunk(kind, *pointers, first * k, count, k, None)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(rows, range(0, n, step)))
    return data


def _dequantize(library: Library, kind: int, data: torch.Tensor, n: int, k: int) -> torch.Tensor:
    weight = torch.empty(n, k)
    to_float = library.get_type_traits(kind).contents.to_float
    to_float(data.data_ptr(), weight.data_ptr(), weight.numel())
    return weight


def _memory(library: Library, kind: int, n: int, x: torch.Tensor) -> int:
    """The first kind of memory that has a product for the weight, as llama.cpp chooses it.

    But "AMX" for one row only, where its kernel is one of VNNI. With more it loads the tile
    configuration once a thread and takes it for granted ever after, while other libraries release
    the tiles of the same threads.
    """
    for memory in library.buffer_types():
        amx = library.backend_buft_name(memory) == b"AMX" and x.numel() > x.shape[-1]
        if not amx and _Run(library, memory, kind, n, x, 1).supported:
            return memory
    raise RuntimeError("ggml has no product for plain memory")


class _Run:
    """A graph of products with x; x and the results in torch's memory, the weights in ggml's."""

    def __init__(
        self, library: Library, memory: int, kind: int, n: int, x: torch.Tensor, count: int
    ):
        self._library, self._backend = library, library.backend(torch.get_num_threads())
        k, self._x = x.shape[-1], x
        self.results = [torch.empty(*x.shape[:-1], n) for _ in range(count)]
        contexts = [library.context(_CONTEXT_BYTES) for _ in range(2)]
        self._weights = [library.new_tensor_2d(contexts[0], kind, k, n) for _ in range(count)]
        buffers = [library.backend_alloc_ctx_tensors_from_buft(contexts[0], memory)]
        self.weight_bytes = library.backend_buft_get_alloc_size(memory, self._weights[0])
        start = library.new_tensor_2d(contexts[1], _F32, k, x.numel() // k)
        self._nodes = [library.mul_mat(contexts[1], weight, start) for weight in self._weights]
        self._graph = library.new_graph(contexts[1])
        for node in self._nodes:
            library.build_forward_expand(self._graph, node)
        ends = zip([start, *self._nodes], [x, *self.results], strict=True)
        buffers += [_place(library, tensor, values) for tensor, values in ends]
        weakref.finalize(self, _free, library, contexts, buffers)

    @property
    def supported(self) -> bool:
        """Whether the backend has a kernel for the weight in its memory."""
        return self._library.backend_supports_op(self._backend, self._nodes[0])

    def set_weights(self, data: torch.Tensor) -> None:
        """Copy the weight into the memory of each; some kinds of memory repack it."""
        for weight in self._weights:
            self._library.backend_tensor_set(weight, data.data_ptr(), 0, data.nbytes)

    def __call__(self) -> torch.Tensor:
        self._library.backend_graph_compute(self._backend, self._graph)
        return self.results[0]


def _place(library: Library, tensor: int, memory: torch.Tensor) -> int:
    """A buffer over a torch tensor, with ggml's tensor in it."""
    buffer = library.backend_cpu_buffer_from_ptr(memory.data_ptr(), memory.nbytes)
    library.backend_tensor_alloc(buffer, tensor, memory.data_ptr())
    return buffer


def _free(library: Library, contexts: list[int], buffers: list[int]) -> None:
    for buffer in buffers:
        library.backend_buffer_free(buffer)
    for context in contexts:
        library.free(context)

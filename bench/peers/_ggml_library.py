"""The C functions of ggml that its adapters call, in the libraries of llama-cpp-python.

They are those of ggml.h, ggml-backend.h and ggml-cpu.h. llama_cpp itself is not imported.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

_MISSING = "llama-cpp-python is not installed; pip install 'lowbit[peers-ggml]'"
_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIZE, _BOOL, _TEXT = ctypes.c_size_t, ctypes.c_bool, ctypes.c_char_p


class ContextParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = [("mem_size", _SIZE), ("mem_buffer", _POINTER), ("no_alloc", _BOOL)]


class TypeTraits(ctypes.Structure):
    """struct ggml_type_traits, as far as it is read."""

    _fields_ = [
        ("type_name", _TEXT),
        ("blck_size", _LONG),
        ("blck_size_interleave", _LONG),
        ("type_size", _SIZE),
        ("is_quantized", _BOOL),
        ("to_float", ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _LONG)),
    ]


# name -> (result, arguments) of what is called.
_BASE = {
    "ggml_init": (_POINTER, ContextParams),
    "ggml_free": (None, _POINTER),
    "ggml_new_tensor_2d": (_POINTER, _POINTER, _INT, _LONG, _LONG),
    "ggml_mul_mat": (_POINTER, _POINTER, _POINTER, _POINTER),
    "ggml_new_graph": (_POINTER, _POINTER),
    "ggml_build_forward_expand": (None, _POINTER, _POINTER),
    "ggml_get_type_traits": (ctypes.POINTER(TypeTraits), _INT),
    "ggml_row_size": (_SIZE, _INT, _LONG),
    "ggml_quantize_chunk": (_SIZE, _INT, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER),
    "ggml_log_set": (None, _POINTER, _POINTER),
    "ggml_threadpool_params_init": (None, _POINTER, _INT),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_POINTER, _POINTER, _POINTER),
    "ggml_backend_buffer_free": (None, _POINTER),
    "ggml_backend_buft_name": (_TEXT, _POINTER),
    "ggml_backend_buft_get_alloc_size": (_SIZE, _POINTER, _POINTER),
    "ggml_backend_tensor_alloc": (_INT, _POINTER, _POINTER, _POINTER),
    "ggml_backend_tensor_set": (None, _POINTER, _POINTER, _SIZE, _SIZE),
    "ggml_backend_supports_op": (_BOOL, _POINTER, _POINTER),
    "ggml_backend_graph_compute": (_INT, _POINTER, _POINTER),
    "ggml_backend_cpu_buffer_type": (_POINTER,),
    "ggml_backend_cpu_buffer_from_ptr": (_POINTER, _POINTER, _SIZE),
    "ggml_backend_reg_dev_get": (_POINTER, _POINTER, _SIZE),
    "ggml_backend_reg_get_proc_address": (_POINTER, _POINTER, _TEXT),
}
_CPU = {
    "ggml_backend_cpu_init": (_POINTER,),
    "ggml_backend_cpu_reg": (_POINTER,),
    "ggml_backend_cpu_set_n_threads": (None, _POINTER, _INT),
    "ggml_backend_cpu_set_threadpool": (None, _POINTER, _POINTER),
    "ggml_threadpool_new": (_POINTER, _POINTER),
}

_EXTRA_BUFTS = b"ggml_backend_dev_get_extra_bufts"
_GET_EXTRA_BUFTS = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)
_LOG = ctypes.CFUNCTYPE(None, _INT, _TEXT, _POINTER)
_PARAMS_BYTES = 4096  # more than sizeof(struct ggml_threadpool_params)


class Library:
    """The functions of _BASE and _CPU as attributes, without their prefix ggml_."""

    def __init__(self, folder: Path):
        for name, signatures in (("base", _BASE), ("cpu", _CPU)):
            # The plain name among those with version numbers.
            path = min(folder.glob(f"libggml-{name}.*"), key=lambda path: len(path.name))
            library = ctypes.CDLL(str(path))
            for function, (result, *arguments) in signatures.items():
                call = getattr(library, function)
                call.restype, call.argtypes = result, arguments
                setattr(self, function.removeprefix("ggml_"), call)
        self._backends: dict[int, int] = {}
        self._log = _LOG(lambda *_: None)  # it reports each repacked tensor on stderr
        self.log_set(ctypes.cast(self._log, _POINTER), None)

    def context(self, size: int) -> int:
        """A context for descriptions of tensors, not for their data."""
        return self.init(ContextParams(size, None, True))

    def backend(self, threads: int) -> int:
        """The CPU backend with threads that are kept, as llama.cpp's own programs keep them."""
        if threads not in self._backends:
            self._backends[threads] = self._new_backend(threads)
        return self._backends[threads]

    def _new_backend(self, threads: int) -> int:
        backend, params = self.backend_cpu_init(), ctypes.create_string_buffer(_PARAMS_BYTES)
        self.threadpool_params_init(params, threads)
        self.backend_cpu_set_n_threads(backend, threads)
        self.backend_cpu_set_threadpool(backend, self.threadpool_new(params))
        return backend

    def buffer_types(self) -> list[int]:
        """Kinds of memory for a weight in the order in which llama.cpp tries them."""
        registry = self.backend_cpu_reg()
        device = self.backend_reg_dev_get(registry, 0)
        address = self.backend_reg_get_proc_address(registry, _EXTRA_BUFTS)
        found = []
        if address:
            extra = _GET_EXTRA_BUFTS(address)(device)  # ends with a null pointer
            while extra[len(found)]:
                found.append(extra[len(found)])
        return [*found, self.backend_cpu_buffer_type()]


@functools.cache
def load() -> Library | str:
    """The functions, or why there are none."""
    try:
        spec = importlib.util.find_spec("llama_cpp")
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return _MISSING
    try:
        return Library(Path(spec.origin).parent / "lib")
    except ValueError:
        return "its llama_cpp brings no libggml-base and libggml-cpu"
    except (OSError, AttributeError) as error:
        return f"its ggml does not fit: {error}"

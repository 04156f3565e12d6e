"""Loading of the compiled libraries: absence is a state with a reason, never an error."""

import threading

import pytest
import torch

from lowbit import native


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """The native module as if nothing were loaded, looking for libraries in an empty folder."""
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(native, "_libraries", {})
    monkeypatch.setattr(native, "_let_forget", lambda: None)  # asks the library itself
    return tmp_path


def test_load_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="name must be one of _ops_cpu, _ops_cuda, got 'cpu'"):
        native.load("cpu")


def test_absent_cpu_library_has_a_reason_and_a_remedy(fresh):
    library = native.load("_ops_cpu")
    assert not library.loaded
    assert library.path == fresh / "_ops_cpu.so"
    assert "not part of this installation" in library.reason
    assert "C++20 compiler" in library.remedy


def test_broken_library_keeps_the_words_of_the_loader(fresh):
    (fresh / "_ops_cpu.so").write_text("not a library")
    library = native.load("_ops_cpu")
    assert not library.loaded
    assert "file too short" in library.reason or "invalid ELF header" in library.reason


def test_isa_names_the_reason_without_the_cpu_library(fresh):
    with pytest.raises(RuntimeError, match="isa: _ops_cpu must be loaded.*C\\+\\+20 compiler"):
        native.isa()


@pytest.mark.parametrize("installed", [False, True])
def test_cuda_library_is_not_touched_without_cuda_in_torch(fresh, monkeypatch, installed):
    monkeypatch.setattr(torch.version, "cuda", None)
    if installed:
        (fresh / "_ops_cuda.so").write_text("not a library")
    assert "without CUDA" in native.load("_ops_cuda").reason


def test_threads_get_one_object_from_one_load(fresh, monkeypatch):
    loads = []
    load_file = native._load_file
    monkeypatch.setattr(native, "_load_file", lambda *a: loads.append(a) or load_file(*a))
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(native.load("_ops_cpu"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(seen) == 8
    assert all(library is seen[0] for library in seen)


def test_a_refused_default_isa_leaves_the_library_loaded_and_says_so(fresh, monkeypatch):
    def refuse_isa(isa):
        raise RuntimeError(f"no {isa} here")

    monkeypatch.setenv("LOWBIT_ISA", "avx512")
    monkeypatch.setattr(native, "_load_file", lambda name, _: native.Library(name, fresh, True))
    monkeypatch.setattr(torch.ops.lowbit, "_cpu_default_isa", refuse_isa, raising=False)
    names = ", ".join(native.ISAS)
    said = f"LOWBIT_ISA must be one of {names} that this CPU and build have, got avx512"
    with pytest.warns(UserWarning, match=f"^{said}; the best one is used$"):
        library = native.load("_ops_cpu")
    assert library.loaded
    assert library.reason == said
    assert "unset it" in library.remedy


@pytest.mark.parametrize("value, asked", [("AVX2", ["avx2"]), (" Scalar ", ["scalar"]), ("", [])])
def test_the_default_isa_is_asked_for_in_lower_case(fresh, monkeypatch, value, asked):
    seen = []
    monkeypatch.setenv("LOWBIT_ISA", value)
    monkeypatch.setattr(native, "_load_file", lambda name, _: native.Library(name, fresh, True))
    monkeypatch.setattr(torch.ops.lowbit, "_cpu_default_isa", seen.append, raising=False)
    assert native.load("_ops_cpu").reason is None
    assert seen == asked


@pytest.fixture
def cpu_library():
    library = native.load("_ops_cpu")
    if not library.loaded:
        pytest.skip(library.reason)


def test_use_isa_nests_and_restores(cpu_library):
    default = native.isa()
    with native.use_isa("scalar") as outer:
        assert (outer, native.isa()) == ("scalar", "scalar")
        with native.use_isa(default) as inner:
            assert (inner, native.isa()) == (default, default)
        assert native.isa() == "scalar"
    assert native.isa() == default


def test_use_isa_is_of_this_thread_alone(cpu_library):
    default, seen = native.isa(), []
    with native.use_isa("scalar"):
        thread = threading.Thread(target=lambda: seen.append(native.isa()))
        thread.start()
        thread.join()
    assert seen == [default]


def test_use_isa_refuses_an_unknown_name(cpu_library):
    with (
        pytest.raises(ValueError, match="use_isa: name must be one of .*, got 'sse'"),
        native.use_isa("sse"),
    ):
        pass


@pytest.mark.parametrize(
    ("arch", "covered", "not_covered"),
    [
        ("80", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (10, 0)]),
        ("89", [(8, 9)], [(8, 0), (8, 6), (9, 0)]),
        ("90a", [(9, 0)], [(8, 9), (9, 1), (10, 0)]),
        ("100f", [(10, 0), (10, 3)], [(9, 0), (12, 0)]),
        ("120+PTX", [(12, 0), (12, 1), (13, 0)], [(8, 0), (10, 0)]),
    ],
)
def test_cuda_arch_supported(monkeypatch, arch, covered, not_covered):
    monkeypatch.setattr(native, "build_info", lambda: {"cuda_archs": [arch]})
    assert all(native.cuda_arch_supported(*device) for device in covered)
    assert not any(native.cuda_arch_supported(*device) for device in not_covered)


def test_no_cuda_arch_is_supported_by_a_build_without_cuda(monkeypatch):
    monkeypatch.setattr(native, "build_info", lambda: {"cuda_archs": []})
    assert not native.cuda_arch_supported(9, 0)


def test_unknown_build_counts_as_covering_every_arch(monkeypatch):
    monkeypatch.setattr(native, "_info_module", lambda: None)
    assert native.build_info() is None
    assert native.cpu_features() is None
    assert native.cuda_arch_supported(9, 0)

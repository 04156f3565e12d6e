"""The libraries that adapters run."""

import importlib


def missing(*modules: str, extra: str = "peers") -> str | None:
    """Why one of the modules cannot be imported, and what to install; None if all can."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            return f"{module} is not installed; pip install 'lowbit[{extra}]'"
        except (ImportError, OSError) as error:
            return f"{module} cannot be imported: {str(error).splitlines()[0]}"
    return None

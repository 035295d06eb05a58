"""A finished run behind HTTP: `rawrec serve`."""

from rawrec.extras import need

NEEDS = {
    "fastapi": "rawrec serve answers by FastAPI",
    "uvicorn": "rawrec serve listens by uvicorn",
    "prometheus_client": "rawrec serve counts for Prometheus",
    "python_multipart": "rawrec serve reads uploads by python-multipart",
}


def need_all() -> None:
    """Raises UserError, with the line that installs it, where a package is missing."""
    for module, what in NEEDS.items():
        need(module, what)

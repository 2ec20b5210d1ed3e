"""The server's page for browsers: an image goes in; boxes or classes, latency and sampling points come out."""

from deploydcn.serving.page.routes import OPEN_PATHS, page_routes

__all__ = ["OPEN_PATHS", "page_routes"]

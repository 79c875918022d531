"""The gallery: one folder a run, whole or absent, checked by sha256, found through a cache."""

from __future__ import annotations

from scribblediffusion.gallery.manifest import Damage
from scribblediffusion.gallery.run import Run
from scribblediffusion.gallery.search import Page
from scribblediffusion.gallery.store import Gallery, default_root

__all__ = ["Damage", "Gallery", "Page", "Run", "default_root"]

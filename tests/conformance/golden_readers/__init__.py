"""How each family of golden files is read: the first part of a file's name -> its reader."""

from __future__ import annotations

from tests.conformance.golden_readers import attention, convolutions, rois
from tests.conformance.golden_readers.golden import Reader

READERS: dict[str, Reader] = {**convolutions.READERS, **attention.READERS, **rois.READERS}

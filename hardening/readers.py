"""Every reader of files that rankscope has."""

from __future__ import annotations

import reader_networks
import reader_requests
import reader_sentences
import reader_sweeps

READERS = {
    reader.name: reader
    for room in (reader_sweeps, reader_networks, reader_sentences, reader_requests)
    for reader in room.READERS
}

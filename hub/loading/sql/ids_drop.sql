DELETE FROM $ids WHERE chunk_start = ANY (%(starts)s) OR version <> %(version)s

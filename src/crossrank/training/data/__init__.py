"""Files of judgements -> one normal form; needs no torch."""

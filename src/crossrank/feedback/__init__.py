"""Feedback on rankings: stored in a database, and read as data for training and evaluation.

It needs SQLAlchemy and alembic (extra ``feedback``); :func:`crossrank.feedback.store.Store` checks that.
"""

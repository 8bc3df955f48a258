"""What people think of rankings: kept in a database, and given back as data to train and evaluate on.

SQLAlchemy and alembic are needed (extra ``feedback``); :func:`crossrank.feedback.store.Store` says so.
"""

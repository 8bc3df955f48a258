"""The command line: ``crossrank rerank``, ``crossrank score``, ``crossrank info``."""

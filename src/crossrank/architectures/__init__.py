"""From a config and arrays to OpenVINO graphs. Each ``model_type`` has one file with a function ``build``."""

"""A config and arrays in, OpenVINO graphs out: one file for each ``model_type``, one ``build`` in each."""

"""The machine: devices, processes, files, logs."""

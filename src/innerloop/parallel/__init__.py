"""Devices and processes: the mesh, parameters over several devices, CPU cores as devices."""

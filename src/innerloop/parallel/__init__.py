"""Devices and processes: the mesh, parameter sharding, CPU cores as devices."""

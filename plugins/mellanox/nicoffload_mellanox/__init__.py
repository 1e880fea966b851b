"""NIC profiles of NVIDIA Mellanox adapters (mlx4, mlx5), as a plugin of nicoffload."""

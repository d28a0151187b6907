"""What people use with a cluster: one cluster for all of them."""

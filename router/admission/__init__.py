"""Lets requests in: tenants, quotas, a fair queue."""

"""Past one machine: replicas with an engine each, as Ray Serve deployments behind the gRPC server of this package."""

"""A load of wearers over real gRPC: how fast guidance comes, and what a server does when there are too many."""

"""The guidance server: gRPC sessions in front of one LEGO engine. It never imports torch."""

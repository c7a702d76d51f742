"""KEDA's external scaler: the controller's decisions, for fleets whose replicas KEDA sets."""

"""Pictures of maps, information and predictions."""

"""Scripts that run inside the cluster, in a pod of the trainer's image. They print one JSON object."""

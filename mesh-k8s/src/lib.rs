//! mesh-k8s

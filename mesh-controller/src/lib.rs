//! mesh-controller

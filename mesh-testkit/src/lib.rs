//! mesh-testkit

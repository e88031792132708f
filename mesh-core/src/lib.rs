//! The pure domain of the mesh: identity, names, routes, policy decisions, balancing and reason codes.
//!
//! A decision (which route, which rule, which endpoint, why) is one function here, called by the proxy to act, by the
//! controller to check, and by `meshctl` to explain.
//!
//! *Invariant:* nothing here does I/O, reads a clock, draws a random number or knows tokio, Kubernetes or protobuf.
//! Time and randomness are parameters.

pub mod addr;
pub mod balance;
pub mod config;
pub mod edge;
pub mod filter;
pub mod histogram;
pub mod identity;
pub mod interception;
pub mod matching;
pub mod name;
pub mod path;
pub mod policy;
pub mod ports;
pub mod protocol;
pub mod range;
pub mod reason;
pub mod resilience;
pub mod resource;
pub mod route;
pub mod settings;

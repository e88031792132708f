//! The data path from end to end: applications, two proxies and a scripted controller on real sockets.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod adaptive;
mod affinity;
mod apps_h2;
mod balance;
mod bounds;
mod bypass;
mod callers;
mod checks;
mod churn;
mod connect;
mod connect_through;
mod corpus;
mod drain;
mod endings;
mod features;
mod first_bytes;
mod floods;
mod frames;
mod framing;
mod grpc_app;
mod grpc_retries;
mod hellos;
mod http1;
mod http2;
mod interim;
mod keep_alive;
mod limits;
mod mesh;
mod policy;
mod proxy_header;
mod raw;
mod redirect;
mod resilience;
mod retries;
mod routing;
mod servers;
mod smuggling;
mod streams;
mod tcp;
mod told;
mod trust;
mod tunnels;
mod unanswered;
mod withdrawn;

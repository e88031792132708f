//! Calls to the proxy's own workload: authenticate, authorise, forward to the application.

mod accept;
mod http;
mod port;
mod tcp;

pub(crate) use self::accept::{explicit, transparent};

//! Calls to the proxy's own workload: authenticate, authorise, forward to the application.

mod accept;
mod first;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http;
mod only_tls;
mod port;
mod proxy_header;
mod tcp;

pub(crate) use self::accept::{explicit, transparent};
